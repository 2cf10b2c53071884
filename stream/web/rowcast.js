// The browser client of rowcast. README.md beside this file is its documentation, rowcast.d.ts has its types.
// A RowcastSource dispatches the events of a Connection. A Connection is one stream that resumes after every failure.

/** @import { Cause, Frame, FrameEvent, Options, State, Status, Why } from "./rowcast.d.ts" */

const SECOND = 1_000; // milliseconds, as all times below
const HEARTBEAT = 15 * SECOND; // until rowcast.hello has the hub's own value
const LATE = 1.5; // heartbeat intervals without a byte after which a stream is delayed
const SILENCE = 2.5; // and after which it is given up
const BEHIND = 5; // seconds since the hub last read from PostgreSQL after which a stream is delayed
const ANSWER = 10 * SECOND; // until the headers of the response
const CALLBACK = 30 * SECOND; // until the result of the token callback
const LONGEST_BACKOFF = 30 * SECOND;
const LONGEST_WAIT = 600 * SECOND; // that a server can ask for
const MISTAKE = 10 * SECOND; // the shortest wait after an answer that a retry hardly changes
const [TOKENS, TOKENS_TIME] = [20, 600 * SECOND]; // calls of the token callback in this time
const LONGEST_EVENT = 2 ** 27; // characters
const ENDED = ["closed", "signed-out", "forbidden"];
const CONTROL = /^rowcast\.(?!toolarge$|unreadable$)/; // the hub's own events that do not take the place of a row
const HANDLERS = [["onmessage", "message"], ["onevent", "rowcast.event"], ["onstate", "rowcast.state"], ["onreset", "rowcast.reset"]];

/** A Parser decodes the bytes of one stream. An event that the end of the stream cuts off is dropped. */
class Parser {
  retry = /** @type {number | undefined} */ (undefined);
  #decoder = new TextDecoder(); // drops a byte order mark
  #line = ""; // the beginning of a line
  #afterCR = false;
  #type = "";
  #data = /** @type {string | undefined} */ (undefined);
  #id = /** @type {string | undefined} */ (undefined);
  #time = /** @type {number | undefined} */ (undefined);

  /** @param {string} cursor */
  constructor(cursor) {
    this.cursor = cursor;
  }

  /** Returns the events that end in a chunk.
   * @param {Uint8Array} bytes */
  push(bytes) {
    const events = /** @type {FrameEvent[]} */ ([]);
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return events;
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text.endsWith("\r");
    // Only the new text is searched. Engines append to a long string in constant time.
    const lines = text.split(/\r\n?|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = /** @type {string} */ (lines.pop());
    for (const line of lines) {
      if (line) this.#field(line);
      else this.#end(events);
    }
    if (this.#line.length + (this.#data?.length ?? 0) > LONGEST_EVENT) throw new RangeError("an event is too long");
    return events;
  }

  /** @param {string} line */
  #field(line) {
    const [, name, value] = /** @type {string[]} */ (/^([^:]*):? ?([^]*)$/.exec(line));
    const digits = /^\d+$/.test(value);
    if (name === "event") this.#type = value;
    else if (name === "data") this.#data = this.#data === undefined ? value : this.#data + "\n" + value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "time" && digits) this.#time = +value;
    else if (name === "retry" && digits) this.retry = +value;
  }

  /** @param {FrameEvent[]} events */
  #end(events) {
    if (this.#id !== undefined) this.cursor = this.#id;
    if (this.#data !== undefined) {
      const event = /** @type {FrameEvent} */ ({ type: this.#type || "message", data: this.#data, lastEventId: this.cursor });
      if (this.#id && !CONTROL.test(event.type)) event.id = parseInt(this.#id);
      if (this.#time !== undefined) event.time = this.#time;
      events.push(event);
    }
    this.#type = "";
    this.#data = this.#id = this.#time = undefined;
  }
}

/** A Connection is one stream with the interface of a source: open, close and check. It calls frame for each chunk that
 * it reads, and status for each change of its state. */
class Connection {
  #control = /** @type {AbortController | undefined} */ (undefined); // of the current attempt
  #timer = /** @type {any} */ (undefined);
  #opened = false;
  #waiting = false; // for the next attempt
  #failures = 0; // attempts in a row that received no byte
  #retry = 0; // the server's retry field
  #notBefore = 0; // the earliest time of the next attempt
  #heard = 0; // when the last byte was received
  #patience = 1; // a factor of SILENCE; grows for large events on slow connections
  #heartbeat = HEARTBEAT;
  #state = /** @type {State} */ ("closed");
  #behind = false; // the last beat said that the hub cannot read from PostgreSQL
  #token = /** @type {string | undefined} */ (undefined);
  #asked = /** @type {number[]} */ ([]); // when the token callback was called

  /** @param {URL} url @param {Options} options @param {string} cursor
   * @param {{ frame: (frame: Frame) => void, status: (status: Status) => void }} callbacks */
  constructor(url, options, cursor, { frame, status }) {
    this.url = url;
    this.options = options;
    this.cursor = cursor;
    this.frame = frame;
    this.status = status;
  }

  open() {
    if (this.#opened) return;
    this.#opened = true;
    this.#failures = this.#notBefore = 0;
    this.#change({ state: "connecting" });
    this.#attempt("open");
  }

  /** Ends the stream at once. After that, open continues from the cursor. */
  close() {
    this.#opened = false;
    this.#drop();
  }

  /** Must be called when the page or the network wakes up. */
  check() {
    if (this.#waiting) this.#schedule(this.#notBefore - Date.now(), () => this.#attempt("open"));
    else if (this.#heard && this.#silence() >= LATE * this.#heartbeat) this.#fail({ reason: "silence" });
  }

  /** @param {Why} why */
  async #attempt(why) {
    this.#drop();
    const control = (this.#control = new AbortController());
    const current = () => this.#control === control;
    this.#notBefore = Date.now() + SECOND;
    let reason = /** @type {Cause["reason"]} */ ("token");
    try {
      this.#schedule(CALLBACK, () => this.#fail({ reason: "token" }));
      await this.#ask(why);
      if (!current()) return;
      reason = "network";
      this.#schedule(ANSWER, () => this.#fail({ reason: "timeout" }));
      const response = await fetch(...this.#request(control.signal));
      if (!current()) return;
      if (this.#accepts(response, why)) await this.#read(/** @type {ReadableStream<Uint8Array>} */ (response.body), current);
    } catch (error) {
      if (!current()) return;
      if (error instanceof RangeError) this.#fail({ reason: "length", error }, MISTAKE);
      else this.#fail({ reason, error }, this.#asked.length < TOKENS ? 0 : this.#asked[0] + TOKENS_TIME - Date.now());
    }
  }

  /** Calls the token callback, unless there is a token that the hub has not refused.
   * @param {Why} why */
  async #ask(why) {
    const { token } = this.options;
    await null; // the constructor of the source has returned before the callback is called
    if (!token || (why === "open" && this.#token !== undefined)) return;
    const now = Date.now();
    this.#asked = this.#asked.filter((time) => time > now - TOKENS_TIME);
    if (this.#asked.length >= TOKENS) throw new Error(`token was called ${TOKENS} times in ten minutes`);
    this.#asked.push(now);
    this.#token = (await token(why)) || "";
  }

  /** Opens a stream with a new token before the old stream ends. */
  async #renew() {
    const control = this.#control;
    try {
      await this.#ask("expired");
      if (this.#control === control) this.#attempt("open");
    } catch {} // the stream continues until the hub ends it
  }

  /** @param {AbortSignal} signal @returns {[URL, RequestInit]} */
  #request(signal) {
    const url = new URL(this.url);
    const headers = /** @type {Record<string, string>} */ ({ Accept: "text/event-stream" });
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    // Another header would cost a preflight, unless the token costs one anyway.
    const foreign = globalThis.location && location.origin !== url.origin;
    if (this.cursor && foreign && !this.#token) url.searchParams.set("last_event_id", this.cursor);
    else if (this.cursor) headers["Last-Event-ID"] = this.cursor;
    return [url, { headers, signal, cache: "no-store", credentials: this.options.withCredentials ? "include" : "same-origin" }];
  }

  /** Reports whether a response is a stream. If it is not, decides how to go on.
   * @param {Response} response @param {Why} why */
  #accepts({ status, headers }, why) {
    if (status === 401 && this.options.token && why !== "refused") this.#attempt("refused");
    else if (status === 401) this.#stop({ state: "signed-out", status });
    else if (status === 403) this.#stop({ state: "forbidden", status });
    else if (status === 204) this.#stop({ state: "closed", status });
    else if (status !== 200) {
      const after = headers.get("Retry-After") ?? "";
      const wait = /^\d+$/.test(after) ? +after * SECOND : Date.parse(after) - Date.now() || 0;
      this.#fail({ reason: "status", status }, Math.max(wait, status >= 500 || [408, 425, 429].includes(status) ? 0 : MISTAKE));
    } else if (!/^text\/event-stream\s*(;|$)/i.test(headers.get("Content-Type") ?? "")) {
      this.#fail({ reason: "type", status }, MISTAKE);
    } else return true;
  }

  /** @param {ReadableStream<Uint8Array>} body @param {() => boolean} current */
  async #read(body, current) {
    const parser = new Parser(this.cursor);
    const reader = body.getReader();
    this.#heard = Date.now();
    this.#watch();
    for (let next = reader.read(); ; ) {
      const { done, value } = await next;
      if (!current()) return;
      if (done) return this.#fail({ reason: "end" });
      next = reader.read(); // before the events are dispatched, because WebKit withholds a chunk until the next read
      next.catch(() => {}); // nobody awaits it if the stream is dropped
      this.#heard = Date.now();
      this.#failures = 0;
      const events = parser.push(value);
      this.#retry = parser.retry ?? this.#retry;
      if (events.length) this.#patience = 1;
      const prev = this.cursor;
      this.cursor = parser.cursor;
      this.#notice(events);
      if (!current()) return;
      this.frame({ prev, cursor: parser.cursor, events, beat: events.some(({ type }) => type === "rowcast.beat") });
      if (!current()) return;
    }
  }

  /** Looks at the hub's own events.
   * @param {FrameEvent[]} events */
  #notice(events) {
    let alive = this.#state === "delayed";
    for (const { type, data } of events) {
      const own = type.startsWith("rowcast.") ? JSON.parse(data) : {};
      if (own.heartbeat > 0) {
        this.#heartbeat = own.heartbeat * SECOND;
        this.#watch();
      }
      if (type === "rowcast.bye") {
        if (own.reason === "expired" && this.options.token) this.#renew();
      } else {
        this.#behind = own.behind > BEHIND;
        alive = true;
      }
    }
    if (this.#behind) this.#change({ state: "delayed", reason: "database" });
    else if (alive) this.#change({ state: "open" });
  }

  /** Returns the time since the last byte. The clock may have been set back. */
  #silence() {
    const now = Date.now();
    this.#heard = Math.min(this.#heard, now);
    return now - this.#heard;
  }

  // The time of the last byte counts, not the timer, which may be late in a hidden page.
  #watch() {
    const [silence, late, limit] = [this.#silence(), LATE * this.#heartbeat, SILENCE * this.#patience * this.#heartbeat];
    if (silence >= limit) {
      this.#patience = Math.min(this.#patience * 2, 16);
      return this.#fail({ reason: "silence" });
    }
    this.#schedule((silence < late ? late : limit) - silence, () => this.#watch());
    if (silence >= late && this.#state === "open") this.#change({ state: "delayed", reason: "silence" });
  }

  /** Ends the attempt, and begins the next one after a time.
   * @param {Cause} cause
   * @param {number} [least] the shortest time */
  #fail(cause, least = 0) {
    this.#drop();
    const now = Date.now();
    const failures = this.#failures++;
    const backoff = failures && SECOND + Math.random() * (Math.min(SECOND * 2 ** failures, LONGEST_BACKOFF) - SECOND);
    // After a silence, the hub did not ask for a wait.
    least = Math.max(least * (1 + Math.random() / 2), cause.reason === "silence" ? 0 : this.#retry);
    this.#notBefore = Math.max(this.#notBefore, now + Math.min(least, LONGEST_WAIT));
    const retryAt = Math.max(now + backoff, this.#notBefore);
    this.#waiting = true;
    this.#schedule(retryAt - now, () => this.#attempt("open"));
    this.#change({ state: "retrying", ...cause, retryAt });
  }

  /** Ends the stream until open is called.
   * @param {Status} status */
  #stop(status) {
    this.close();
    this.#token = undefined;
    this.#change(status);
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#waiting = false;
    this.#heard = 0;
    this.#control?.abort();
    this.#control = undefined;
  }

  /** @param {number} wait @param {() => void} action */
  #schedule(wait, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, Math.max(wait, 0));
  }

  /** @param {Status} status */
  #change(status) {
    if (status.state === this.#state && status.state !== "retrying") return;
    this.#state = status.state;
    this.status(status);
  }
}

/** An event of a stream: a row, a NOTIFY message or an event of the hub. */
class RowcastEvent extends Event {
  #text;
  #parsed = false;
  #data = /** @type {any} */ (undefined);

  /** @param {string} type @param {FrameEvent} event */
  constructor(type, { type: name, data, lastEventId, id, time }) {
    super(type);
    this.#text = data;
    this.name = name;
    this.lastEventId = lastEventId;
    this.id = id;
    this.time = time === undefined ? undefined : new Date(time);
  }

  get data() {
    if (!this.#parsed) {
      this.#parsed = true;
      try {
        this.#data = JSON.parse(this.#text);
      } catch {
        this.#data = this.#text;
      }
    }
    return this.#data;
  }
}

/** A source of events in the manner of an EventSource. See README.md. */
export class RowcastSource extends EventTarget {
  onmessage = null;
  onevent = null;
  onstate = null;
  onreset = null;
  #url;
  #options;
  #cursor;
  #state = /** @type {State} */ ("closed");
  #source = /** @type {Connection | undefined} */ (undefined);
  #page = /** @type {AbortController | undefined} */ (undefined); // ends the listeners of the page
  #asleep = false; // the page is frozen or in the back/forward cache

  /** @param {string | URL} url @param {Options} [options] */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
    this.#options = options;
    this.#cursor = options.lastEventId || this.#stored();
    for (const [property, type] of HANDLERS) this.addEventListener(type, (event) => /** @type {any} */ (this)[property]?.(event));
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

  /** Continues a stream that has ended. */
  open() {
    if (!ENDED.includes(this.#state)) return;
    const source = (this.#source = new Connection(this.#url, this.#options, this.#cursor, {
      frame: (frame) => this.#source === source && this.#receive(frame),
      status: (status) => this.#source === source && this.#change(status),
    }));
    this.#listen();
    source.open();
  }

  close() {
    this.#source?.close();
    this.#source = undefined;
    this.#page?.abort();
    if (this.#state !== "closed") this.#change({ state: "closed" });
  }

  /** @param {Frame} frame */
  #receive({ events, cursor }) {
    const source = this.#source;
    for (const event of events) {
      this.#cursor = event.lastEventId;
      if (!CONTROL.test(event.type)) this.dispatchEvent(new RowcastEvent("rowcast.event", event));
      this.dispatchEvent(new RowcastEvent(event.type, event));
      if (this.#source !== source) return; // a listener has called close
    }
    this.#cursor = cursor;
    this.#store();
  }

  /** @param {Status} status */
  #change(status) {
    this.#state = status.state;
    this.dispatchEvent(Object.assign(new Event("rowcast.state"), status));
  }

  #listen() {
    this.#page?.abort();
    const { signal } = (this.#page = new AbortController());
    /** @param {any} target @param {string} type @param {(event: any) => void} listener */
    const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal });
    const { document } = globalThis;
    const check = () => document?.hidden || this.#source?.check();
    const sleep = () => {
      this.#asleep ||= !ENDED.includes(this.#state);
      this.#source?.close();
    };
    const wake = () => {
      if (this.#asleep) this.#source?.open();
      this.#asleep = false;
    };
    on(globalThis, "online", () => this.#source?.check());
    on(document, "visibilitychange", check);
    on(globalThis, "pagehide", sleep);
    on(document, "freeze", sleep);
    on(document, "resume", wake);
    // After a thaw, the reader of a stream may be dead without an error.
    on(globalThis, "pageshow", (event) => (event.persisted ? wake() : check()));
  }

  #stored() {
    try {
      return (this.#options.persist && sessionStorage.getItem(this.#options.persist)) || "";
    } catch {
      return ""; // there is no storage, or the page may not use it
    }
  }

  #store() {
    try {
      if (this.#options.persist) sessionStorage.setItem(this.#options.persist, this.#cursor);
    } catch {}
  }
}
