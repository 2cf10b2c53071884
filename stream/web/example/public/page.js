import { RowcastSource } from "/rowcast.js";

const source = new RowcastSource("/events", { lastEventId: document.body.dataset.cursor });

// Every task arrives once, and none that the page already has.
source.addEventListener("task", ({ data: { id, title, author } }) => {
  const item = document.querySelector("#received-task").content.cloneNode(true).firstElementChild;
  item.id = `task-${id}`;
  item.classList.add("live");
  item.querySelector(".title").textContent = title;
  item.querySelector(".author").textContent = author;
  item.querySelector("form").action = `/tasks/${id}/done`;
  document.querySelector("#received").prepend(item);
});

source.addEventListener("done", ({ data: { id } }) => {
  const state = document.querySelector(`#given-${id} em`);
  if (state) state.textContent = "done";
});

source.onreset = () => location.reload();

source.onstate = ({ state }) => {
  document.querySelector("#state").textContent = state === "open" ? "live" : state;
  document.body.dataset.state = state;
  if (state === "signed-out") location.assign("/sign-in");
};
