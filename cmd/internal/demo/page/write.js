// The forms that run SQL, the watched table, and the buttons that copy a command.

const literal = (text) => `'${text.replaceAll("'", "''")}'`;
const fields = (form) => Object.fromEntries(new FormData(form));

/** Returns the columns of the row in the form. Text that begins with { or [ is the data. Other text becomes {"msg": text}. */
function row(form) {
  const values = fields(form);
  const text = values.data.trim();
  return { ...values, data: /^[[{]/.test(text) ? text : `{"msg": ${JSON.stringify(text)}}` };
}

// What each form sends, the statement that it shows, and the text for an answer.
const forms = {
  write: {
    values: row,
    sql: ({ recipient, event, data }) => `INSERT INTO rowcast.notifications\n  (recipient, event, data)\nVALUES (${literal(recipient)}, ${literal(event)},\n  ${literal(data)});`,
    done: ({ id }) => `INSERT 0 1, row ${id}`,
  },
  order: {
    values: fields,
    sql: ({ customer, product }) => `INSERT INTO rowcast_demo.orders\n  (customer, product)\nVALUES (${literal(customer)}, ${literal(product)});`,
    done: ({ id }) => `INSERT 0 1, order ${id}`,
  },
  message: {
    values: fields,
    sql: ({ text }) => `NOTIFY rowcast, ${literal(text)};`,
    done: () => "NOTIFY",
  },
};

for (const [name, { values, sql, done }] of Object.entries(forms)) {
  const form = document.getElementById(name);
  const result = form.querySelector(".result");
  const show = () => (form.querySelector(".sql").textContent = sql(values(form)));
  const showResult = (text, failed) => {
    result.textContent = text;
    result.classList.toggle("failed", failed);
  };
  form.oninput = show;
  form.onsubmit = async (submit) => {
    submit.preventDefault();
    try {
      const response = await fetch(form.dataset.url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values(form)) });
      const answer = await response.json();
      showResult(response.ok ? done(answer) : answer.error, !response.ok);
    } catch {
      showResult("The demo does not answer. Is it still running?", true);
    }
    if (name === "order") showOrders();
  };
  show();
}

/** Shows the newest rows of the watched table. */
async function showOrders() {
  const response = await fetch("/demo/orders").catch(() => undefined);
  if (!response?.ok) return;
  const orders = await response.json();
  document.querySelector("#orders").hidden = orders.length === 0;
  document.querySelector("#orders tbody").replaceChildren(...orders.map(({ id, customer, product }) => {
    const line = document.createElement("tr");
    for (const value of [id, customer, product]) line.append(Object.assign(document.createElement("td"), { textContent: value }));
    return line;
  }));
}
showOrders();

for (const button of document.querySelectorAll(".copy")) {
  button.onclick = async () => {
    await navigator.clipboard.writeText(button.previousElementSibling.textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1_500);
  };
}
