// A service worker that answers each request with fetch(). If the URL of this script has the query ?leave, the worker does
// not answer requests for /events, and the browser sends these requests itself.
const leave = location.search === "?leave";
oninstall = () => skipWaiting();
onactivate = (event) => event.waitUntil(clients.claim());
onfetch = (event) => {
	if (leave && new URL(event.request.url).pathname === "/events") return;
	event.respondWith(fetch(event.request));
};
