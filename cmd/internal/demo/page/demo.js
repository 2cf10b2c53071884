// The page of the demo. Data from the database enters the document as text only, never as HTML.
import { showState, showStream } from "./stream.js";
import "./write.js";

await customElements.whenDefined("rowcast-inbox");
for (const element of document.querySelectorAll("rowcast-inbox.bell")) {
  const user = element.closest("[data-user]").dataset.user;
  showStream(user, element.store);
  element.store.addEventListener("change", showState);
}
showState();

document.querySelector("#lang").onchange = ({ target }) => {
  for (const element of document.querySelectorAll("rowcast-inbox")) element.lang = target.value;
};
