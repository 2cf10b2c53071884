// What the page shows of whom it is for and of what arrived.

const users = { alice: "Alice", bob: "Bob" };
const asked = new URLSearchParams(location.search).get("uid");
/** Whose page this is. */
export const me = Object.hasOwn(users, asked) ? asked : "alice";
const other = me === "alice" ? "bob" : "alice";

const KEPT = 200; // notifications in the list
const LONG = 20_000; // characters of data in it
const TOAST = 6_000; // milliseconds

const $ = (selector) => document.querySelector(selector);
const clone = (template) => $(template).content.firstElementChild.cloneNode(true);

$(`nav [data-user=${me}]`).setAttribute("aria-current", "page");
$(".me").textContent = users[me];
$("#beside").textContent = `Open ${users[other]} beside`;
$("#beside").href = `/?uid=${other}`;

/**
 * @typedef {object} Row
 * @property {string} name of the event
 * @property {any} data
 * @property {number} [id] none for a message by hand
 * @property {Date} [at] default: now
 */

/** Puts a row on top of the list. @param {Row} row */
export function list({ name, data, id, at = new Date() }) {
  const item = clone("#row");
  const text = JSON.stringify(data, null, 2);
  item.querySelector(".title").textContent = title(data);
  item.querySelector("summary").textContent = text.slice(0, 500).replaceAll(/\n */g, " ");
  item.querySelector("pre").textContent = text.length > LONG ? `${text.slice(0, LONG)}…` : text;
  item.querySelector(".event-name").textContent = name;
  item.querySelector("time").textContent = at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
  item.querySelector("time").dateTime = at.toISOString();
  item.querySelector(".id").textContent = id === undefined ? "by hand" : `row ${id}`;
  $("#list").prepend(item);
  if ($("#list").children.length > KEPT) $("#list").lastElementChild.remove();
  $("#empty").hidden = true;
  return item;
}

/** The one line that says it best. */
function title(data) {
  const text = typeof data === "string" ? data : data?.msg ?? data?.message ?? data?.title;
  return (typeof text === "string" ? text : JSON.stringify(data)).slice(0, 300);
}

/** Shows a row that has just come. @param {Row} row */
export function arrive(row) {
  list(row).classList.add("new", "unread");
  toast(title(row.data));
  count(unread + 1);
  const bell = $("#bell svg");
  for (const animation of bell.getAnimations()) animation.cancel();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) bell.animate({ rotate: ["0deg", "14deg", "-11deg", "6deg", "0deg"] }, 500);
}

function toast(text) {
  const box = clone("#toast");
  box.querySelector("p").textContent = text;
  box.querySelector("button").onclick = () => box.remove();
  setTimeout(() => box.remove(), TOAST);
  $("#toasts").append(box);
  if ($("#toasts").children.length > 3) $("#toasts").firstElementChild.remove();
}

let unread = 0;

/** Sets the number of what nobody has looked at. @param {number} n */
export function count(n) {
  unread = n;
  $("#count").textContent = n > 99 ? "99+" : n;
  $("#count").hidden = n === 0;
  $("#bell").setAttribute("aria-label", n === 0 ? "No unread notifications" : `${n} unread, mark all as read`);
  document.title = `${n ? `(${n}) ` : ""}${users[me]} · rowcast demo`;
}

$("#bell").onclick = () => {
  count(0);
  for (const item of document.querySelectorAll("#list .unread")) item.classList.remove("unread");
};
