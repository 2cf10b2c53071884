// New rows in a corner of the page, for some seconds.

import { h, icon } from "./dom.js";
import { SECOND } from "./time.js";

export const SHOWN = 30 * SECOND; // a tab shows no older row
const shown = new Set(); // the keys that were shown, if the browser has no locks

/** Calls the function show at most once for a key, in all tabs and elements together: only the caller that gets the browser's lock for the
 * key calls it. The lock is held as long as a tab could show the row. Without locks, or if the page may not use them, show is called once
 * in each tab. */
export function once(key, show) {
  const alone = () => {
    if (shown.has(key)) return;
    shown.add(key);
    setTimeout(() => shown.delete(key), SHOWN);
    show();
  };
  if (!navigator.locks) return alone();
  navigator.locks.request("rowcast-toast " + key, { ifAvailable: true }, (lock) => lock && (show(), new Promise((resolve) => setTimeout(resolve, SHOWN)))).catch((error) => error.name === "SecurityError" && alone());
}

const USES = [["pointerenter", "pointer", true], ["pointerleave", "pointer", false], ["focusin", "focus", true], ["focusout", "focus", false]];

/** Toasts shows up to three rows. */
export class Toasts {
  node = h("div", { part: "toasts", popover: "manual" });
  #host;

  /** @param {import("./index.js").Host} host */
  constructor(host) {
    this.#host = host;
  }

  clear() {
    if (!this.node.childElementCount) return;
    this.node.replaceChildren();
    this.node.hidePopover();
  }

  /** Shows a row for six seconds. While the pointer is over it or it has the focus, the row stays. After that, the six seconds begin again. */
  show(link) {
    const { node } = this;
    const remove = () => {
      toast.remove();
      if (!node.childElementCount) node.hidePopover();
    };
    let timer;
    const uses = new Set(); // "pointer" and "focus"
    const use = (name, begins) => {
      uses[begins ? "add" : "delete"](name);
      clearTimeout(timer);
      if (!uses.size) timer = setTimeout(remove, 6 * SECOND);
    };
    link.addEventListener("click", remove);
    const close = this.#host.button("close", "icon", remove, "close");
    const toast = h("div", { part: "toast" }, icon("bell"), link, close);
    for (const [type, ...args] of USES) toast.addEventListener(type, () => use(...args));
    use("pointer", false);
    node.append(toast);
    while (node.childElementCount > 3) node.querySelector(".toast:not(:focus-within, :hover)").remove();
    node.hidePopover();
    node.showPopover(); // above what has opened meanwhile
  }
}
