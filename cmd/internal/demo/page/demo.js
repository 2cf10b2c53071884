// The page of the demo. Data from the database enters the document as text only, never as HTML.
import { RowcastSource } from "/rowcast.js";
import { addToList, receive, setUnread, user } from "./view.js";
import "./write.js";

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
function showState({ state, reason }) {
  wasOpen ||= state === "open";
  const label = state === "delayed" && reason === "database" ? "Waiting for PostgreSQL" : wasOpen ? "Reconnecting" : "Connecting";
  document.querySelector("#state").dataset.state = state;
  document.querySelector("#state span").textContent = state === "open" ? "Live" : label;
}

const { rows, cursor } = await readExisting();
for (const row of rows) addToList({ ...row, at: new Date(row.at) });

const source = new RowcastSource(`/events?uid=${user}`, { lastEventId: cursor });
source.onstate = showState;
source.onreset = () => location.reload();
source.onevent = ({ name, data, id, time }) => {
  if (name === "rowcast.toolarge") data = { msg: `The data of row ${id} is too large to be sent`, size: data.size };
  receive({ name, data, id, at: time });
};
setUnread(0);
