// The compiler checks this file in strict mode with the types of Node, without the library "dom", and nothing runs it.
import { RowcastSource } from "rowcast"; // rowcast.d.ts
import { RowcastInbox } from "rowcast/inbox-store"; // rowcast-inbox-store.d.ts

const { signal } = new AbortController();
const source = new RowcastSource("http://127.0.0.1:8080/events", { token: async () => "a" });
source.addEventListener("rowcast.state", ({ state, retryAt }) => console.log(state, retryAt), { once: true, signal });
source.removeEventListener("notify", null, { capture: true });
new RowcastInbox({ events: "http://127.0.0.1:8080/events" }).addEventListener("row", ({ detail }) => detail.id.length, { signal });
// @ts-expect-error
source.addEventListener("notify", null, { twice: true });
