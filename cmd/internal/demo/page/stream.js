// The state of the streams, and the events that they receive.

const LENGTH = 50; // events of a stream that are shown
const DATA_LENGTH = 2_000; // characters

/** Shows that all streams are open or, if one is not, the state of the first such stream. */
export function showState() {
  const states = [...document.querySelectorAll("rowcast-inbox.bell")].map(({ store }) => store.state);
  const state = states.find((state) => state !== "open") ?? "open";
  const label = { open: "Live", delayed: "Waiting for PostgreSQL", loading: "Connecting", connecting: "Connecting" }[state] ?? "Reconnecting";
  const line = document.querySelector("#state");
  if (line.dataset.state === state) return;
  line.dataset.state = state;
  line.lastElementChild.textContent = label;
}

/** Shows the events of a user's stream. The store may open its stream again, so its source can change. */
export function showStream(user, store) {
  const list = document.querySelector(`.stream[data-user=${user}]`);
  let source;
  const follow = () => {
    if (store.source === source || !store.source) return;
    source = store.source;
    for (const name of ["rowcast.hello", "rowcast.event", "rowcast.inbox", "rowcast.reset", "rowcast.beat"]) source.addEventListener(name, (event) => addEvent(list, event));
  };
  store.addEventListener("change", follow);
  follow();
}

function addEvent(list, { name, data, id, lastEventId, time }) {
  const item = document.createElement("li");
  const text = JSON.stringify(data);
  item.append(field("event", name), field("data", text.length > DATA_LENGTH ? `${text.slice(0, DATA_LENGTH)}…` : text));
  if (time) item.append(field("time", time.getTime()));
  // The property id is missing for NOTIFY messages, and for the hub's own events except rowcast.toolarge and
  // rowcast.unreadable. The lastEventId of a NOTIFY message is the cursor of the event before it, so it is not shown.
  if (id || ["rowcast.hello", "rowcast.reset"].includes(name)) item.append(field("id", lastEventId));
  list.prepend(item);
  if (list.children.length > LENGTH) list.lastElementChild.remove();
}

function field(name, value) {
  const line = document.createElement("div");
  const key = document.createElement("b");
  key.textContent = `${name}: `;
  line.className = name;
  line.append(key, String(value));
  return line;
}
