// The form that inserts a row, and the buttons that copy.

const form = document.querySelector("#write");
const { recipient, event, data } = form.elements;
let written = () => {};

/** Says whom to tell the event name of a row before it is inserted. @param {(name: string) => void} tell */
export function onWritten(tell) {
  written = tell;
}

/** What the form says, as the columns of a row. An object or an array is data as it is, anything else the msg in it. */
function columns() {
  const text = data.value.trim();
  return {
    recipient: recipient.value || null,
    event: event.value,
    data: /^[[{]/.test(text) ? text : `{"msg": ${JSON.stringify(text)}}`,
  };
}

const literal = (text) => (text === null ? "NULL" : `'${text.replaceAll("'", "''")}'`);

function preview() {
  const row = columns();
  document.querySelector("#sql").textContent = "INSERT INTO rowcast.notifications\n  (recipient, event, data)\n"
    + `VALUES (${literal(row.recipient)}, ${literal(row.event)},\n  ${literal(row.data)});`;
}

function result(text, wrong) {
  const line = document.querySelector("#result");
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
}

async function insert(row) {
  const answer = await fetch("/demo/notifications", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(row),
  });
  const said = await answer.json();
  if (answer.ok) result(`INSERT 0 1, row ${said.id}`, false);
  else result(said.error, true);
}

form.oninput = preview;
form.onsubmit = async (submit) => {
  submit.preventDefault();
  const row = columns();
  written(row.event);
  try {
    await insert(row);
  } catch {
    result("The demo does not answer. Is it still running?", true);
  }
};
preview();

for (const button of document.querySelectorAll(".copy")) {
  button.onclick = async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1_500);
  };
}
