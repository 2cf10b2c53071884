// A service worker that answers requests by passing them on. With the query ?leave, it leaves the requests for /events
// alone.
const leave = location.search === "?leave";
oninstall = () => skipWaiting();
onactivate = (event) => event.waitUntil(clients.claim());
onfetch = (event) => {
	if (leave && new URL(event.request.url).pathname === "/events") return;
	event.respondWith(fetch(event.request));
};
