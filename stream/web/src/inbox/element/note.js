// The line between the header and the list: the state of the connection, and what just happened.

import { h } from "./dom.js";

const SECOND = 1_000;

/** A Note shows one text. What happened is shown for a time, and the state of the connection while it lasts. */
export class Note {
  node = h("div", { part: "note", role: "status", hidden: true });
  #host;
  #busy = false; // shows what happened
  #key; // the state of the connection
  #timer;

  /** @param {import("./index.js").Host} host */
  constructor(host) {
    this.#host = host;
  }

  close() {
    clearTimeout(this.#timer);
  }

  /** Shows a state of the connection that lasts for two seconds. */
  connection() {
    const key = { retrying: "offline", delayed: "delayed", "signed-out": "signedOut" }[this.#host.store?.state];
    if (this.#busy || this.#key === key) return;
    this.#key = key;
    clearTimeout(this.#timer);
    this.node.hidden = true;
    if (key) this.#timer = setTimeout(() => this.#show(key), 2 * SECOND);
  }

  /** Shows a text for a time, or until another one. */
  say(key, time = 10 * SECOND, ...more) {
    clearTimeout(this.#timer);
    this.#show(key, ...more);
    this.#busy = true;
    this.#timer = setTimeout(() => this.#quiet(), time);
  }

  #show(key, ...more) {
    this.node.replaceChildren(h("span", { textContent: this.#host.text(key) }), ...more);
    this.node.hidden = false;
  }

  #quiet() {
    clearTimeout(this.#timer);
    if (this.node.contains(this.#host.focused)) this.#host.focusPanel();
    this.node.hidden = true;
    this.#busy = false;
    this.#key = undefined;
    this.connection();
  }

  offerUndo(key) {
    const undo = () => {
      this.#host.store?.undo();
      this.#quiet();
    };
    this.say(key, 12 * SECOND, this.#host.button("undo", "text", undo));
  }
}
