// The list of notifications, the toasts and the bell.

const users = { alice: "Alice", bob: "Bob" };
const requested = new URLSearchParams(location.search).get("uid");
/** The user of this page. */
export const user = Object.hasOwn(users, requested) ? requested : "alice";
const other = user === "alice" ? "bob" : "alice";

const LIST_LENGTH = 200; // notifications
const DATA_LENGTH = 20_000; // characters
const TOAST_TIME = 6_000; // milliseconds
const TOASTS = 3;

const $ = (selector) => document.querySelector(selector);
const clone = (template) => $(template).content.firstElementChild.cloneNode(true);

$(`nav [data-user=${user}]`).setAttribute("aria-current", "page");
$(".user").textContent = users[user];
$("#other").textContent = `Open the page of ${users[other]}`;
$("#other").href = `/?uid=${other}`;

/**
 * @typedef {object} Row
 * @property {string} name the name of the event
 * @property {any} data
 * @property {number} [id] undefined for a message that is not stored
 * @property {Date} [at] the time; default: now
 */

/** Adds a row at the top of the list. @param {Row} row */
export function addToList({ name, data, id, at = new Date() }) {
  const item = clone("#row");
  const text = JSON.stringify(data, null, 2);
  item.querySelector(".title").textContent = title(data);
  item.querySelector("summary").textContent = text.slice(0, 500).replaceAll(/\n */g, " ");
  item.querySelector("pre").textContent = text.length > DATA_LENGTH ? `${text.slice(0, DATA_LENGTH)}…` : text;
  item.querySelector(".event-name").textContent = name;
  item.querySelector("time").textContent = at.toDateString() === new Date().toDateString() ? at.toLocaleTimeString() : at.toLocaleString();
  item.querySelector("time").dateTime = at.toISOString();
  item.querySelector(".id").textContent = id === undefined ? "not stored" : `row ${id}`;
  $("#list").prepend(item);
  if ($("#list").children.length > LIST_LENGTH) $("#list").lastElementChild.remove();
  $("#empty").hidden = true;
  return item;
}

/** Returns the text of a notification: a member of data that usually contains a text, or all of data. */
function title(data) {
  const text = typeof data === "string" ? data : data?.msg ?? data?.message ?? data?.title;
  return (typeof text === "string" ? text : JSON.stringify(data)).slice(0, 300);
}

/** Shows a row that has just arrived. @param {Row} row */
export function receive(row) {
  addToList(row).classList.add("new", "unread");
  showToast(title(row.data));
  setUnread(unread + 1);
  const bell = $("#bell svg");
  for (const animation of bell.getAnimations()) animation.cancel();
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) bell.animate({ rotate: ["0deg", "14deg", "-11deg", "6deg", "0deg"] }, 500);
}

function showToast(text) {
  const toast = clone("#toast");
  toast.querySelector("p").textContent = text;
  toast.querySelector("button").onclick = () => toast.remove();
  setTimeout(() => toast.remove(), TOAST_TIME);
  $("#toasts").append(toast);
  if ($("#toasts").children.length > TOASTS) $("#toasts").firstElementChild.remove();
}

let unread = 0;

/** Sets the number of unread notifications. @param {number} n */
export function setUnread(n) {
  unread = n;
  $("#count").textContent = n > 99 ? "99+" : n;
  $("#count").hidden = n === 0;
  $("#bell").setAttribute("aria-label", n === 0 ? "No unread notifications" : `${n} unread, mark all as read`);
  document.title = `${n ? `(${n}) ` : ""}${users[user]} · rowcast demo`;
}

$("#bell").onclick = () => {
  setUnread(0);
  for (const item of document.querySelectorAll("#list .unread")) item.classList.remove("unread");
};
