import { Connection } from "./connection.js";
import { CONTROL, parse } from "./parser.js";
import { Tabs } from "./tabs.js";

/** @import { Frame, FrameEvent, Options, State, Status } from "../rowcast.d.ts" */

const ENDED = ["closed", "signed-out", "forbidden"];

/** @param {string} type @param {FrameEvent} event */
function newEvent(type, { type: name, data: text, lastEventId, id, time }) {
  let parsed;
  return Object.defineProperty(Object.assign(new Event(type), { name, lastEventId, id, time: time >= 0 ? new Date(time) : undefined }), "data", {
    get: () => (parsed ??= [parse(text)])[0],
    enumerable: true,
  });
}

/** @param {string | URL} url */
function absolute(url) {
  try {
    return new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    throw new TypeError(`the URL of the stream is malformed, or is relative outside of a page: ${url}`);
  }
}

/** A source of events, similar to an EventSource. */
export class RowcastSource extends EventTarget {
  onmessage = null;
  onevent = null;
  onstate = null;
  onreset = null;
  #url;
  #options;
  #cursor;
  /** @type {State} */
  #state = "closed";
  #source;

  /** @param {string | URL} url @param {Options} [options] */
  constructor(url, options = {}) {
    super();
    this.#url = absolute(url);
    for (const [name, type] of Object.entries({ token: "function", lastEventId: "string", persist: "string", user: "string" })) {
      if (options[name] && typeof options[name] !== type) throw new TypeError(`the option ${name} must be a ${type}`);
    }
    this.#options = options;
    this.#cursor = options.lastEventId || this.#storage("getItem") || "";
    this.addEventListener("message", (event) => this.onmessage?.(event));
    for (const name of ["event", "state", "reset"]) this.addEventListener("rowcast." + name, (event) => this["on" + name]?.(event));
    this.open();
  }

  get url() {
    return this.#url.href;
  }

  get state() {
    return this.#state;
  }

  get lastEventId() {
    return this.#cursor;
  }

  open() {
    if (!ENDED.includes(this.#state)) return;
    this.#source ??= this.#connect();
    this.#source.open();
  }

  close() {
    this.#source?.close();
    this.#source = undefined;
    if (this.#state !== "closed") this.#change({ state: "closed" });
  }

  #connect() {
    const { user, shared } = this.#options;
    const connection = new Connection(this.#url, this.#options);
    const connect = (cursor, callbacks) => connection.from(cursor, callbacks);
    const source = new Tabs(connect, { name: this.url, user: user || undefined, shared, cursor: this.#cursor }, {
      frame: (frame) => this.#source === source && this.#receive(frame),
      status: (status) => {
        if (this.#source !== source) return;
        if (ENDED.includes(status.state)) connection.forget(); // also if the stream of another tab has ended
        this.#change(status);
      },
      restored: () => connection.forget(), // another user may have signed in meanwhile
    });
    return source;
  }

  /** @param {Frame} frame */
  #receive({ events, cursor }) {
    const source = this.#source;
    for (const event of events) {
      this.#cursor = event.lastEventId;
      for (const type of CONTROL.test(event.type) ? [event.type] : ["rowcast.event", event.type]) {
        this.dispatchEvent(newEvent(type, event));
        if (this.#source !== source) return this.#storage("setItem", this.#cursor); // a listener has closed this source
      }
    }
    this.#cursor = cursor;
    this.#storage("setItem", cursor);
  }

  /** @param {Status} status */
  #change(status) {
    this.#state = status.state;
    this.dispatchEvent(Object.assign(new Event("rowcast.state"), status));
  }

  /** @param {"getItem" | "setItem"} method @param {string} [cursor] */
  #storage(method, cursor) {
    const { persist } = this.#options;
    try {
      return persist && sessionStorage[method](persist, cursor);
    } catch {} // there is no storage, or the page may not use it
  }
}
