// The lines between the header and the list: the state of the connection, and what just happened.

import { h } from "./dom.js";
import { SECOND } from "./time.js";

/** Notes shows a problem of the connection until it is over, and what has just happened for some seconds. */
export class Notes {
  node = h("div", { role: "status" });
  #host;
  #connection = h("div", { part: "note", hidden: true });
  #event = h("div", { part: "note", hidden: true });
  #key; // the key of the text about the connection
  #failed = false; // #event says that a change failed
  #timers = /** @type {Record<string, any>} */ ({});

  /** @param {import("./index.js").Host} host */
  constructor(host) {
    this.#host = host;
    this.node.append(this.#connection, this.#event);
  }

  close() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
  }

  /** Shows a state of the connection when it has lasted for two seconds. If the list is empty, the list itself says that
   * it cannot be loaded. */
  connection() {
    const { store } = this.#host;
    const failed = store.items.length ? "failed" : undefined;
    const key = { retrying: "offline", delayed: "delayed", failed, forbidden: failed }[store.state];
    if (this.#key === key) return;
    this.#key = key;
    clearTimeout(this.#timers.connection);
    this.#hide(this.#connection);
    const more = key === "failed" ? [this.#host.button("retry", "text", () => this.#host.store?.load())] : [];
    if (key) this.#timers.connection = setTimeout(() => this.#show(this.#connection, key, ...more), 2 * SECOND);
  }

  /** Says that a change or another request has failed. */
  fail(key) {
    this.#say(key, 8 * SECOND);
    this.#failed = true;
  }

  /** Hides the note about a failed change or request, because a later change was saved. */
  saved() {
    if (this.#failed) this.clear();
  }

  offerUndo(key) {
    const undo = () => {
      this.clear();
      this.#host.save(this.#host.store?.undo());
    };
    this.#say(key, 12 * SECOND, this.#host.button("undo", "text", undo));
  }

  #say(key, time, ...more) {
    clearTimeout(this.#timers.event);
    this.#failed = false;
    this.#show(this.#event, key, ...more);
    this.#timers.event = setTimeout(() => this.clear(), time);
  }

  /** Hides what has just happened. */
  clear() {
    clearTimeout(this.#timers.event);
    this.#failed = false;
    this.#hide(this.#event);
  }

  #show(line, key, ...more) {
    line.replaceChildren(h("span", { textContent: this.#host.text(key) }), ...more);
    line.hidden = false;
  }

  #hide(line) {
    if (line.contains(this.#host.focused)) this.#host.panel.focus();
    line.hidden = true;
  }
}
