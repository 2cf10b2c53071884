// New rows in a corner of the page, for some seconds.

import { h, icon } from "./dom.js";

const SECOND = 1_000;

const shown = new Set(); // the keys that were shown, if the browser has no locks

/** Calls the function show at most once for a key, in all tabs and elements together: only the caller that gets the browser's lock for the
 * key calls it. The lock is held for 30 s, because a tab shows no older row. Without locks, or if the page may not use them, show is
 * called once in each tab. */
export function once(key, show) {
  const alone = () => shown.has(key) || (shown.add(key), show());
  if (!navigator.locks) return alone();
  navigator.locks.request("rowcast-toast " + key, { ifAvailable: true }, (lock) => lock && (show(), new Promise((resolve) => setTimeout(resolve, 30 * SECOND)))).catch((error) => error.name === "SecurityError" && alone());
}

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

  /** Shows a row for six seconds. While the pointer is over it, the row stays. The six seconds begin again when the pointer leaves it. */
  show(link) {
    const { node } = this;
    const remove = () => {
      toast.remove();
      if (!node.childElementCount) node.hidePopover();
    };
    let timer;
    const start = () => (timer = setTimeout(remove, 6 * SECOND));
    link.addEventListener("click", remove);
    const close = this.#host.button("close", "icon", remove, "close");
    const toast = h("div", { part: "toast", onpointerenter: () => clearTimeout(timer), onpointerleave: start }, icon("bell"), link, close);
    start();
    node.append(toast);
    while (node.childElementCount > 3) node.firstElementChild.remove();
    node.hidePopover();
    node.showPopover(); // above what has opened meanwhile
  }
}
