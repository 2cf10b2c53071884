import { createRequire } from "node:module";
import { report } from "./report.mjs";

// The package expects these two objects of a browser.
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} };
globalThis.window = globalThis;
const { fetchEventSource } = createRequire(import.meta.url)("@microsoft/fetch-event-source");

fetchEventSource(process.argv[2], {
	onmessage: ({ event, id, data }) => report(event, id, data),
	onclose() {
		throw new Error("the stream has ended"); // an error makes the client reconnect
	},
	onerror() {}, // a handler that returns nothing makes the client reconnect after the retry time
});
