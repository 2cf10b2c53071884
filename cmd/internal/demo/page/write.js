// The form that inserts a row, and the buttons that copy a command.

const form = document.querySelector("#write");
const { recipient, event, data } = form.elements;

/** Returns the columns of the row in the form. Text that begins with { or [ is the data. Other text becomes {"msg": text}. */
function columns() {
  const text = data.value.trim();
  return {
    recipient: recipient.value,
    event: event.value,
    data: /^[[{]/.test(text) ? text : `{"msg": ${JSON.stringify(text)}}`,
  };
}

const literal = (text) => `'${text.replaceAll("'", "''")}'`;

function showSQL() {
  const row = columns();
  document.querySelector("#sql").textContent = "INSERT INTO rowcast.notifications\n  (recipient, event, data)\n"
    + `VALUES (${literal(row.recipient)}, ${literal(row.event)},\n  ${literal(row.data)});`;
}

function showResult(text, failed) {
  const line = document.querySelector("#result");
  line.textContent = text;
  line.classList.toggle("failed", failed);
}

async function insert(row) {
  const response = await fetch("/demo/notifications", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(row),
  });
  const answer = await response.json();
  if (response.ok) showResult(`INSERT 0 1, row ${answer.id}`, false);
  else showResult(answer.error, true);
}

form.oninput = showSQL;
form.onsubmit = async (submit) => {
  submit.preventDefault();
  try {
    await insert(columns());
  } catch {
    showResult("The demo does not answer. Is it still running?", true);
  }
};
showSQL();

for (const button of document.querySelectorAll(".copy")) {
  button.onclick = async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1_500);
  };
}
