// The names of the events that listen reports. The event of a row is "n".
export const names = ["n", "rowcast.hello", "rowcast.reset"];

// report prints an event as a line of JSON. Like many apps, it parses the data of each event.
export function report(event, id, data) {
	JSON.parse(data);
	console.log(JSON.stringify({ event, id, data }));
}

// listen reports the events of an EventSource.
export function listen(source) {
	for (const name of names) source.addEventListener(name, (event) => report(event.type, event.lastEventId, event.data));
}

// The process lives until its standard input ends. Some clients do not keep it alive while they wait to reconnect.
process.stdin.resume().on("end", () => process.exit());
