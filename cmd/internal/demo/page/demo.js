// The page of the demo. Data from the database enters the document as text only, never as HTML.
import { subscribe } from "/rowcast.js";
import { addToList, receive, setUnread, user } from "./view.js";
import { onInsert } from "./write.js";

/** Reads the existing rows and the cursor at which the stream continues. If this fails, the page shows new rows only. */
async function readExisting() {
  try {
    const answer = await fetch(`/demo/notifications?uid=${user}`, { signal: AbortSignal.timeout(5_000) });
    return answer.ok ? await answer.json() : { rows: [] };
  } catch {
    return { rows: [] };
  }
}

let wasOpen = false;
function showState(state) {
  wasOpen ||= state === "open";
  const labels = { connecting: wasOpen ? "Reconnecting" : "Connecting", open: "Live", behind: "Waiting for PostgreSQL" };
  document.querySelector("#state").dataset.state = state;
  document.querySelector("#state span").textContent = labels[state];
}

const { rows, cursor } = await readExisting();
for (const row of rows) addToList({ ...row, at: new Date(row.at) });

let lastEventId = cursor;
const stream = subscribe(`/events?uid=${user}`, { lastEventId: cursor, onState: showState, onReset: () => location.reload() });
stream.on("rowcast.hello", (_, event) => (lastEventId = event.lastEventId));
stream.on("rowcast.beat", ({ behind }, event) => {
  lastEventId = event.lastEventId;
  showState(behind > 5 ? "behind" : "open");
});
stream.on("rowcast.toolarge", ({ id, size }, event) => {
  lastEventId = event.lastEventId;
  receive({ name: "rowcast.toolarge", data: { msg: `The data of row ${id} is too large to be sent`, size }, id });
});

// A browser passes on only the events whose names a page has registered. The user can add names, and the demo pages in this browser share them.

const STORAGE_KEY = "rowcast-demo-events";
const names = new Set();

function listenFor(name) {
  if (names.has(name) || /^(|error|open|rowcast\..*)$/.test(name)) return; // the table refuses these names
  names.add(name);
  stream.on(name, (data, event) => {
    const stored = event.lastEventId !== lastEventId; // a message that is not stored repeats the previous id
    lastEventId = event.lastEventId;
    receive({ name, data, id: stored ? parseInt(lastEventId) : undefined });
  });
  const label = document.createElement("span");
  label.className = "event-name";
  label.textContent = name;
  document.querySelector("#names").append(label);
}

function addName(name) {
  listenFor(name);
  localStorage.setItem(STORAGE_KEY, JSON.stringify([...names]));
}

function loadNames() {
  for (const name of JSON.parse(localStorage.getItem(STORAGE_KEY) ?? "[]")) listenFor(name);
}

["message", "notify", "order", ...rows.map((row) => row.name)].forEach(listenFor);
loadNames();
addEventListener("storage", loadNames);
onInsert(addName);
document.querySelector("#listening").onsubmit = (event) => {
  event.preventDefault();
  const input = document.querySelector("#name");
  if (input.value) addName(input.value);
  input.value = "";
};
setUnread(0);
