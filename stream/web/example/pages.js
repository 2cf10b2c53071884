// html is a tag for templates. It escapes every value, except other templates.
class Html extends String {}
const escaped = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (value) => (value instanceof Html ? value : String(value).replace(/[&<>"']/g, (character) => escaped[character]));
const html = (texts, ...values) => new Html(String.raw({ raw: texts }, ...values.map((value) => [value].flat().map(escape).join(""))));

const layout = (head, body) =>
  String(html`<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Tasks</title>
<link rel="icon" href="/icon.svg">
<link rel="stylesheet" href="/page.css">
${head}
${body}
</html>
`);

export const signInPage = (users) =>
  layout(
    "",
    html`<main class="narrow">
<h1>Who are you?</h1>
<p>This is an example, so it asks for no password.</p>
<form method="post" action="/sign-in" class="users">
${users.map(({ id, name }) => html`<button name="user" value="${id}">${name}</button>`)}
</form>
</main>`,
  );

const receivedTask = ({ id = "", title = "", author = "" } = {}) =>
  html`<li id="task-${id}"><div><span class="title">${title}</span> <small>from <span class="author">${author}</span></small></div>
<form method="post" action="/tasks/${id}/done"><button>Done</button></form></li>`;

const givenTask = ({ id, title, assignee, done }) =>
  html`<li id="given-${id}"><div><span class="title">${title}</span> <small>to ${assignee}</small></div><em>${done ? "done" : "open"}</em></li>`;

export const tasksPage = ({ name, cursor, users, received, given }) =>
  layout(
    html`<script type="module" src="/rowcast-inbox.js"></script>
<script type="module" src="/page.js"></script>`,
    html`<body data-cursor="${cursor}">
<header>
<strong>Tasks</strong>
<span id="state" role="status">connecting</span>
<rowcast-inbox events="/events" toasts title-badge></rowcast-inbox>
<form method="post" action="/sign-out"><button>Sign out ${name}</button></form>
</header>
<main>
<form method="post" action="/tasks" class="new">
<input name="title" required maxlength="200" placeholder="A new task" aria-label="Task" autocomplete="off">
<select name="assignee" aria-label="Who does it">
${users.map(({ id, name }) => html`<option value="${id}">${name}</option>`)}
</select>
<button>Add</button>
</form>
<section>
<h2>To do</h2>
<ul id="received">
${(received ?? []).map(receivedTask)}
</ul>
<p class="empty">Nothing to do.</p>
</section>
<section>
<h2>Given to others</h2>
<ul id="given">
${(given ?? []).map(givenTask)}
</ul>
<p class="empty">Nothing yet.</p>
</section>
<template id="received-task">${receivedTask()}</template>
</main>
</body>`,
  );
