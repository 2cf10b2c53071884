// The browser client of rowcast, see README.md and rowcast.d.ts. A RowcastSource dispatches the events of a Connection, which is one stream
// that resumes after every failure. Times are in milliseconds.

/** @import { Cause, FrameEvent, Options, State, Status } from "./rowcast.d.ts" */

const SECOND = 1_000;
const BEHIND = 5; // seconds since the hub last read from PostgreSQL after which a stream is delayed
const LATE = 1.5; // heartbeat intervals without a byte after which a stream is delayed
const SILENCE = 2.5; // and after which it is given up
const ANSWER = 10 * SECOND; // the limit until the headers of a response
const CALLBACK = 30 * SECOND; // the limit of the token callback
const MISTAKE = 10 * SECOND; // the shortest wait after an answer that will hardly change
const BACKOFF = 30 * SECOND;
const LONGEST_WAIT = 600 * SECOND; // also if the server asks for more
const TOKENS = 20; // calls of the token callback in LONGEST_WAIT
const LONGEST_EVENT = 2 ** 27; // characters
const ENDED = ["closed", "signed-out", "forbidden"];
const CONTROL = /^rowcast\.(?!toolarge$|unreadable$)/; // events of the hub that do not take the place of a row

// Returns the value of a JSON text, or another text itself.
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

// A Parser decodes one stream.
class Parser {
  retry;
  #decoder = new TextDecoder(); // removes a byte order mark
  #line = ""; // the beginning of a line
  #afterCR = false;
  #block = /** @type {Record<string, string>} */ ({});

  constructor(cursor) {
    this.cursor = cursor;
  }

  // Returns the events that end in a chunk.
  push(bytes) {
    const events = /** @type {FrameEvent[]} */ ([]);
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return events;
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text.endsWith("\r");
    // Only the new text is searched. Adding it to a long line takes constant time.
    const lines = text.split(/\r\n?|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) {
      if (line) this.#field(line);
      else this.#end(events);
    }
    if (this.#line.length + (this.#block.data?.length ?? 0) > LONGEST_EVENT) throw new RangeError("the event is too long");
    return events;
  }

  #field(line) {
    const [, name, value] = /^([^:]*):? ?([^]*)/.exec(line);
    const block = this.#block;
    if (name === "data" && "data" in block) block.data += "\n" + value;
    else if (/^(data|event)$/.test(name) || (name === "id" && !value.includes("\0")) || (name === "time" && /^\d+$/.test(value))) block[name] = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = +value;
  }

  #end(events) {
    const { event, data, id, time } = this.#block;
    this.#block = {};
    const lastEventId = (this.cursor = id ?? this.cursor);
    if (data === undefined) return;
    const type = event || "message";
    events.push({ type, data, lastEventId, id: id && !CONTROL.test(type) ? parseInt(id) : undefined, time: time && +time });
  }
}

// A Connection calls frame for each chunk that it reads, and status for each change of its state.
class Connection {
  #control; // of the current attempt
  #timer;
  #waiting = false; // for the next attempt
  #began = 0; // when the attempt began
  #notBefore = 0; // the earliest time of the next attempt
  #failures = 0; // attempts in a row that received no byte
  #retry = 0;
  #heartbeat = 15 * SECOND; // until the hub names it
  #heard = 0; // when the last byte was received
  #patience = 1; // a factor of SILENCE, for large events on slow connections
  #behind = false; // the hub cannot read from PostgreSQL
  #state;
  #token;
  #asked = []; // when the token callback was called

  /** @param {URL} url @param {Options} options @param {string} cursor */
  constructor(url, options, cursor, { frame, status }) {
    this.url = url;
    this.options = options;
    this.cursor = cursor;
    this.frame = frame;
    this.status = status;
  }

  open() {
    if (this.#control || this.#waiting) return;
    this.#failures = 0;
    this.#change({ state: "connecting" });
    this.#attempt("open");
  }

  // Must be called when the page or the network wakes up.
  check() {
    if (this.#waiting) this.#schedule(this.#notBefore - Date.now(), () => this.#attempt("open"));
    else if (this.#heard && this.#silence() >= LATE * this.#heartbeat) this.#fail({ reason: "silence" });
  }

  async #attempt(why) {
    this.close();
    const control = (this.#control = new AbortController());
    const current = () => this.#control === control;
    this.#began = Date.now();
    let reason = /** @type {Cause["reason"]} */ ("token");
    let least = 0;
    try {
      this.#schedule(CALLBACK, () => this.#fail({ reason: "token" }));
      await this.#ask(why);
      if (!current()) return;
      reason = "network";
      this.#schedule(ANSWER, () => this.#fail({ reason: "timeout" }));
      const response = await fetch(...this.#request(control.signal));
      if (current() && this.#accepts(response, why)) await this.#read(response.body.getReader(), current);
    } catch (error) {
      if (!current()) return;
      if (error instanceof RangeError) [reason, least] = ["length", MISTAKE];
      else if (reason === "token" && this.#asked.length >= TOKENS) least = this.#asked[0] + LONGEST_WAIT - Date.now();
      this.#fail({ reason, error }, least);
    }
  }

  // Calls the token callback, unless there is a token that the hub has not refused.
  async #ask(why) {
    const { token } = this.options;
    await null; // until the constructor has returned, because the callback may use the source
    if (!token || (why === "open" && this.#token !== undefined)) return;
    const now = Date.now();
    this.#asked = this.#asked.filter((time) => time > now - LONGEST_WAIT);
    if (this.#asked.length >= TOKENS) throw new Error("too many calls of the token callback");
    this.#asked.push(now);
    this.#token = (await token(why)) || "";
  }

  // Opens a stream with a new token before the old stream ends.
  async #renew() {
    const control = this.#control;
    try {
      await this.#ask("expired");
      if (this.#control === control) this.#attempt("open");
    } catch {} // the stream continues until the hub ends it
  }

  /** @returns {[URL, RequestInit]} */
  #request(signal) {
    const url = new URL(this.url);
    const headers = /** @type {Record<string, string>} */ ({ Accept: "text/event-stream" });
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    // For another origin, a header costs a preflight, which the token costs anyway.
    const simple = !this.#token && globalThis.location && location.origin !== url.origin;
    if (this.cursor && simple) url.searchParams.set("last_event_id", this.cursor);
    else if (this.cursor) headers["Last-Event-ID"] = this.cursor;
    return [url, { headers, signal, cache: "no-store", credentials: this.options.withCredentials ? "include" : "same-origin" }];
  }

  // Reports whether a response is a stream. If it is not, decides how to go on.
  #accepts({ status, headers }, why) {
    if (status === 401 && this.options.token && why !== "refused") this.#attempt("refused");
    else if (status === 401) this.#stop({ state: "signed-out", status });
    else if (status === 403) this.#stop({ state: "forbidden", status });
    else if (status === 204) this.#stop({ state: "closed", status });
    else if (status !== 200) {
      const after = headers.get("Retry-After");
      const wait = +after * SECOND || Date.parse(after) - Date.now() || 0;
      this.#fail({ reason: "status", status }, Math.max(wait, status >= 500 || [408, 425, 429].includes(status) ? 0 : MISTAKE));
    } else if (!/^text\/event-stream *(;|$)/i.test(headers.get("Content-Type"))) this.#fail({ reason: "type", status }, MISTAKE);
    else return true;
  }

  async #read(reader, current) {
    const parser = new Parser(this.cursor);
    this.#heard = Date.now();
    this.#watch();
    for (let next = reader.read(); ; ) {
      const { done, value } = await next;
      if (!current()) return;
      if (done) return this.#fail({ reason: "end" });
      next = reader.read(); // before the events are dispatched, because WebKit withholds a chunk until the next read
      next.catch(() => {}); // if the stream is dropped, nothing awaits it
      this.#heard = Date.now();
      this.#failures = 0;
      const events = parser.push(value);
      this.#retry = parser.retry ?? this.#retry;
      this.#notice(events);
      if (!current()) return;
      const [prev, cursor] = [this.cursor, parser.cursor];
      this.cursor = cursor;
      this.frame({ prev, cursor, events, beat: events.some(({ type }) => type === "rowcast.beat") });
      if (!current()) return;
    }
  }

  #notice(events) {
    if (events.length) this.#patience = 1;
    let alive = this.#state === "delayed";
    for (const { type, data } of events) {
      const { heartbeat, behind, reason } = CONTROL.test(type) ? Object(parse(data)) : {};
      if (heartbeat > 0) {
        this.#heartbeat = heartbeat * SECOND;
        this.#watch();
      }
      if (type === "rowcast.bye") {
        if (reason === "expired" && this.options.token) this.#renew();
      } else if (type !== "rowcast.void") {
        this.#behind = behind > BEHIND;
        alive = true;
      }
    }
    if (this.#behind) this.#change({ state: "delayed", reason: "database" });
    else if (alive) this.#change({ state: "open" });
  }

  // Returns the time since the last byte. The clock may have been set back.
  #silence() {
    const now = Date.now();
    return now - (this.#heard = Math.min(this.#heard, now));
  }

  // The time of the last byte counts, because timers are late in a hidden page.
  #watch() {
    const [silence, late, limit] = [this.#silence(), LATE * this.#heartbeat, SILENCE * this.#patience * this.#heartbeat];
    if (silence >= limit) {
      this.#patience = Math.min(this.#patience * 2, 16);
      return this.#fail({ reason: "silence" });
    }
    this.#schedule((silence < late ? late : limit) - silence, () => this.#watch());
    if (silence >= late && this.#state === "open") this.#change({ state: "delayed", reason: "silence" });
  }

  /** Ends the attempt, and begins another one after at least a time.
   * @param {Cause} cause */
  #fail(cause, least = 0) {
    this.close();
    const now = Date.now();
    const failures = this.#failures++;
    const backoff = failures && SECOND + Math.random() * (Math.min(SECOND * 2 ** failures, BACKOFF) - SECOND);
    const asked = cause.reason === "silence" ? 0 : this.#retry;
    least = Math.max(least * (1 + Math.random() / 2), asked, Math.min(this.#began + SECOND - now, SECOND));
    this.#notBefore = now + Math.min(least, LONGEST_WAIT);
    const retryAt = Math.max(now + backoff, this.#notBefore);
    this.#waiting = true;
    this.#schedule(retryAt - now, () => this.#attempt("open"));
    this.#change({ state: "retrying", ...cause, retryAt });
  }

  // Ends the stream until open is called.
  #stop(status) {
    this.close();
    this.#change(status);
  }

  // Ends the stream at once. After that, open continues from the cursor.
  close() {
    clearTimeout(this.#timer);
    this.#waiting = false;
    this.#heard = 0;
    this.#control?.abort();
    this.#control = undefined;
  }

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

function newEvent(type, { type: name, data: text, lastEventId, id, time }) {
  let parsed;
  return Object.defineProperty(Object.assign(new Event(type), { name, lastEventId, id, time: time >= 0 ? new Date(time) : undefined }), "data", {
    get: () => (parsed ??= [parse(text)])[0],
    enumerable: true,
  });
}

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
  #page; // ends the listeners of the page
  #asleep = false; // the page is frozen or in the back/forward cache

  /** @param {string | URL} url @param {Options} [options] */
  constructor(url, options = {}) {
    super();
    this.#url = new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href);
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

  #receive({ events, cursor }) {
    const source = this.#source;
    for (const event of events) {
      this.#cursor = event.lastEventId;
      for (const type of CONTROL.test(event.type) ? [event.type] : ["rowcast.event", event.type]) {
        this.dispatchEvent(newEvent(type, event));
        if (this.#source !== source) return; // a listener has closed it
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

  #listen() {
    this.#page?.abort();
    const { signal } = (this.#page = new AbortController());
    const on = (target, type, listener) => target?.addEventListener?.(type, listener, { signal });
    const { document } = globalThis;
    const check = () => document?.hidden || this.#source?.check();
    const sleep = () => {
      this.#asleep ||= !ENDED.includes(this.#state);
      this.#source?.close();
    };
    // After a thaw, the reader of the old stream may be dead without an error.
    const wake = () => {
      if (this.#asleep) this.#source?.open();
      this.#asleep = false;
    };
    on(globalThis, "online", () => this.#source?.check());
    on(globalThis, "pageshow", (event) => (event.persisted ? wake() : check()));
    on(globalThis, "pagehide", sleep);
    on(document, "visibilitychange", check);
    on(document, "freeze", sleep);
    on(document, "resume", wake);
  }

  /** @param {"getItem" | "setItem"} method @param {string} [cursor] */
  #storage(method, cursor) {
    const { persist } = this.#options;
    try {
      return persist && sessionStorage[method](persist, cursor);
    } catch {} // the page has no storage
  }
}
