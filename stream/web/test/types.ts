// The compiler checks this file, and nothing runs it.
import * as script from "./script.js"; // a copy of rowcast.js
import * as types from "./rowcast.js"; // rowcast.d.ts

export const declared: typeof types = script; // the script has everything that the types declare

const source = new types.RowcastSource("/events", { token: async (why) => (why === "open" ? "a" : null), lastEventId: "1" });
source.onstate = ({ state, reason, status, retryAt }) => console.log(state === "retrying", reason === "end", status, retryAt);
source.onmessage = (event) => console.log(event.data.anything, event.id, event.time);
source.addEventListener("rowcast.reset", (event) => event.data.reason === "expired");
source.addEventListener<{ msg: string }>("notify", (event) => event.data.msg.length);
// @ts-expect-error
source.state = "open";
// @ts-expect-error
new types.RowcastSource("/events", { tokens: "a" });
// @ts-expect-error
source.addEventListener("rowcast.reset", (event) => event.data.reason === "other");
