// The number in the title of the page.

import { MANY } from "../many.js";

const stores = new Map(); // by element
let shown = ""; // the number that stands before the title of the page

/** Shows the number of unseen rows of the element's store in the title. Without a store, the element no longer counts. The title has the
 * sum of all elements. Elements that share a store count once. */
export function showInTitle(element, store) {
  if (store) stores.set(element, store);
  else if (!stores.delete(element)) return;
  const sum = [...new Set(stores.values())].reduce((n, { unseenCount }) => n + unseenCount, 0);
  const title = (document.title.startsWith(shown) ? document.title.slice(shown.length) : document.title).trim(); // the page may have set another title
  shown = sum ? `(${sum >= MANY ? "99+" : sum})` : "";
  const wanted = `${shown} ${title}`.trim();
  if (document.title !== wanted) document.title = wanted;
}
