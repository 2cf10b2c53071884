// The demo's page. What comes from the database reaches the document as text only, never as HTML.
import { subscribe } from "/rowcast.js";
import { arrive, count, list, me } from "./view.js";
import { onWritten } from "./write.js";

/** What is in the table already, and the cursor that goes on exactly there. Without an answer the page begins with the stream. */
async function history() {
  try {
    const answer = await fetch(`/demo/notifications?uid=${me}`, { signal: AbortSignal.timeout(5_000) });
    return answer.ok ? await answer.json() : { rows: [] };
  } catch {
    return { rows: [] };
  }
}

let begun = false;
function show(state) {
  begun ||= state === "open";
  const words = { connecting: begun ? "Reconnecting" : "Connecting", open: "Live", behind: "Waiting for PostgreSQL" };
  document.querySelector("#state").dataset.state = state;
  document.querySelector("#state span").textContent = words[state];
}

const { rows, cursor } = await history();
for (const row of rows) list({ ...row, at: new Date(row.at) });

let last = cursor; // the id of the last event that had one
const stream = subscribe(`/events?uid=${me}`, { lastEventId: cursor, onState: show, onReset: () => location.reload() });
stream.on("rowcast.hello", (_, event) => (last = event.lastEventId));
stream.on("rowcast.beat", ({ behind }, event) => {
  last = event.lastEventId;
  show(behind > 5 ? "behind" : "open");
});
stream.on("rowcast.toolarge", ({ id, size }, event) => {
  last = event.lastEventId;
  arrive({ name: "rowcast.toolarge", data: { msg: `Row ${id} is too large for the stream`, size }, id });
});

// An EventSource hears only the names that it is told. The page lets one say which, and the tabs share what was said.

const NAMES = "rowcast-demo-events";
const names = new Set();

function listen(name) {
  if (names.has(name) || /^(|error|open|rowcast\..*)$/.test(name)) return; // the table refuses these
  names.add(name);
  stream.on(name, (data, event) => {
    const stored = event.lastEventId !== last; // a message by hand has no id, and its event carries the one before
    last = event.lastEventId;
    arrive({ name, data, id: stored ? parseInt(last) : undefined });
  });
  const chip = document.createElement("span");
  chip.className = "event-name";
  chip.textContent = name;
  document.querySelector("#names").append(chip);
}

function remember(name) {
  listen(name);
  localStorage.setItem(NAMES, JSON.stringify([...names]));
}

function recall() {
  for (const name of JSON.parse(localStorage.getItem(NAMES) ?? "[]")) listen(name);
}

["message", "notify", ...rows.map((row) => row.name)].forEach(listen);
recall();
addEventListener("storage", recall);
onWritten(remember);
document.querySelector("#listening").onsubmit = (event) => {
  event.preventDefault();
  const input = document.querySelector("#name");
  if (input.value) remember(input.value);
  input.value = "";
};
count(0);
