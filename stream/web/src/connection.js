// A stream that is opened again after a failure, and resumes. Times are in milliseconds.
import { CONTROL, Parser, parse } from "./parser.js";
import { checkToken } from "./token.js";

/** @import { Cause, Frame, FrameEvent, Options, Status, Why } from "../rowcast.d.ts" */

export const SECOND = 1_000;
const BEHIND = 5; // a stream is delayed if the hub has not read from PostgreSQL for more than this number of seconds
const LATE = 1.5; // a stream is delayed after this number of heartbeat intervals without a byte
export const SILENCE = 2.5; // a stream is given up after this number of heartbeat intervals without a byte
const ANSWER = 10 * SECOND; // the time limit for the headers of a response, and then for the first byte of a stream
const CALLBACK = 30 * SECOND; // the time limit of the token callback
const POLLING = 60 * SECOND; // how long the client polls before it tries a stream again
const POLLING_ON = 300 * SECOND; // how long it polls after this stream was withheld, too
const MISTAKE = 10 * SECOND; // the shortest wait after an answer that will probably be the same the next time
const BACKOFF = 30 * SECOND; // the longest random wait
const LONGEST_WAIT = 600 * SECOND; // the longest wait, even if the server asks for more
const LONG_CURSOR = 1_000; // a longer cursor may be the reason why a server or a proxy refuses a request as too long
const TOKENS = 20; // the limit of calls of the token callback within LONGEST_WAIT

/** Returns a time in milliseconds. Unlike Date.now(), it does not change if the clock of the computer is set. */
const now = () => performance.now();

/** A Connection calls frame for each chunk that it reads, and status for each change of its state. After close, it can be used again. It
 * still has the token then, unless forget was called, and the wait that the server has asked for. */
export class Connection {
  #opened = false;
  #control; // the AbortController of the current attempt
  #timer;
  #waiting = false; // no attempt runs, and the timer will begin the next one
  #began = 0; // when the attempt began
  #notBefore = 0; // the earliest time of the next attempt
  #cause = /** @type {Cause} */ (undefined); // why the last attempt has failed
  #failures = 0; // failures since a byte was last received
  #retry = 0; // the value of the field retry
  #heartbeat = 15 * SECOND; // the default, until rowcast.hello has the hub's interval
  #heard = 0; // when the last byte was received
  #patience = 1; // a factor of SILENCE, for large events on slow connections
  #polls = false; // the current attempt is a poll
  #pollUntil = 0; // until this time, attempts are polls, because a proxy withholds streams
  #behind = false; // the hub has not read from PostgreSQL for more than BEHIND seconds
  #state;
  #reason; // the reason of the state "open": "buffered" while the client polls
  #token;
  #forgotten = 0; // the number of calls of forget
  #asked = []; // the times of the last calls of the token callback
  #refused; // a cursor that was probably too long for a server or a proxy; null if another reason was found

  /** @param {URL} url @param {Options} options */
  constructor(url, options) {
    this.url = url;
    this.options = options;
  }

  /** Must be called before open, while the stream is closed.
   * @param {string} cursor
   * @param {{ frame: (frame: Frame) => void, status: (status: Status) => void }} callbacks */
  from(cursor, { frame, status }) {
    this.cursor = cursor;
    this.frame = frame;
    this.status = status;
    return this;
  }

  open() {
    if (this.#opened) return;
    this.#opened = true;
    this.#failures = 0;
    const wait = this.#notBefore - now();
    if (wait > 0) return this.#retryAfter(wait);
    this.#change({ state: "connecting" });
    if (this.#opened) this.#attempt("open"); // otherwise a listener of the page has closed the stream
  }

  /** Ends the stream at once. After that, open continues from the cursor. */
  close() {
    this.#opened = false;
    this.#state = undefined;
    this.#drop();
  }

  /** Forgets the token, which may belong to another user than the present one. A token that was requested before is not used either. */
  forget() {
    this.#token = undefined;
    this.#forgotten++;
  }

  /** Must be called when the page or the network wakes up. */
  check() {
    if (this.#waiting) this.#wait(this.#notBefore - now());
    else if (this.#heard && this.#silence() >= LATE * this.#heartbeat) this.#fail({ reason: "silence" });
  }

  /** @param {Why} why */
  async #attempt(why) {
    this.#drop();
    const control = (this.#control = new AbortController());
    const current = () => this.#control === control;
    this.#began = now();
    this.#polls = this.#began < this.#pollUntil;
    let reason = /** @type {Cause["reason"]} */ ("token");
    let least = 0;
    try {
      this.#schedule(CALLBACK, () => this.#fail({ reason: "token" }));
      await this.#ask(why);
      if (!current()) return;
      reason = "network";
      if (this.#polls) this.#listen(); // the hub may answer a poll only after a heartbeat interval
      else this.#schedule(ANSWER, () => this.#withheld("timeout"));
      const response = await fetch(...this.#request(control.signal));
      if (current() && this.#accepts(response, why)) await this.#read(response.body.getReader(), current);
    } catch (error) {
      if (!current()) return;
      if (error instanceof RangeError) [reason, least] = ["length", MISTAKE];
      else if (reason === "token" && this.#asked.length >= TOKENS) least = this.#asked[0] + LONGEST_WAIT - now();
      this.#fail({ reason, error }, least);
    }
  }

  /** Calls the token callback. If why is "open", a token from an earlier call is used again.
   * @param {Why} why */
  async #ask(why) {
    const { token } = this.options;
    await null; // the callback may use the source, so the constructor must have returned
    if (!token || (why === "open" && this.#token !== undefined)) return;
    this.#asked = this.#asked.filter((time) => time > now() - LONGEST_WAIT);
    if (this.#asked.length >= TOKENS) throw new Error("too many calls of the token callback");
    this.#asked.push(now());
    const forgotten = this.#forgotten;
    const text = checkToken(await token(why));
    if (forgotten === this.#forgotten) this.#token = text;
  }

  /** Gets a new token, and replaces the stream before the hub ends it. */
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
    if (this.#polls) url.searchParams.set("poll", "1");
    const headers = /** @type {Record<string, string>} */ ({ Accept: "text/event-stream" });
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    // The header Last-Event-ID causes a preflight request to another origin. A token causes one anyway.
    const simple = !this.#token && globalThis.origin && globalThis.origin !== url.origin; // "null" in a sandboxed frame
    const cursor = this.cursor === this.#refused ? "refused" : this.cursor; // the hub answers a malformed cursor with a reset
    // fetch refuses a header with other characters than these.
    if (cursor && (simple || /[^ -~]/.test(cursor))) url.searchParams.set("last_event_id", cursor);
    else if (cursor) headers["Last-Event-ID"] = cursor;
    return [url, { headers, signal, cache: "no-store", credentials: this.options.withCredentials ? "include" : "same-origin" }];
  }

  /** Reports whether a response is a stream. If it is not, begins a new attempt at once or after a wait, or stops.
   * @param {Response} response @param {Why} why */
  #accepts({ status, headers }, why) {
    if (status === 401 && this.options.token && why !== "refused") this.#attempt("refused");
    else if (status === 401) this.#stop({ state: "signed-out", status });
    else if (status === 403) this.#stop({ state: "forbidden", status });
    else if (status === 204) this.#stop({ state: "closed", status });
    else if ([400, 414, 431].includes(status) && this.cursor.length > LONG_CURSOR) this.#refuse(status);
    else if (status !== 200) {
      const after = headers.get("Retry-After");
      const wait = +after * SECOND || Date.parse(after) - (Date.parse(headers.get("Date")) || Date.now()) || 0;
      this.#fail({ reason: "status", status }, Math.max(wait, status >= 500 || [408, 425, 429].includes(status) ? 0 : MISTAKE));
    } else if (!/^text\/event-stream *(;|$)/i.test(headers.get("Content-Type"))) this.#fail({ reason: "type", status }, MISTAKE);
    else return true;
  }

  /** Asks again with an invalid cursor, because the cursor is probably too long. If this fails in the same way, the cursor was not the
   * reason, and the next attempt has it again. Only the first time is without a wait, because a reset can bring another long cursor. */
  #refuse(status) {
    const before = this.#refused;
    this.#refused = before === this.cursor ? null : this.cursor;
    if (before === undefined) this.#attempt("open");
    else this.#fail({ reason: "status", status }, MISTAKE);
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader @param {() => boolean} current */
  async #read(reader, current) {
    const parser = new Parser(this.cursor);
    const begin = this.cursor;
    let greeted = false;
    if (!this.#polls) this.#schedule(ANSWER, () => this.#withheld("buffered")); // the hub begins each stream with a comment
    for (let next = reader.read(); ; ) {
      const { done, value } = await next;
      if (!current()) return;
      if (done && this.#polls && greeted && parser.retry === undefined) {
        if (this.cursor !== begin) return this.#attempt("open");
        // The answer has not moved the cursor. A proxy may repeat an old answer, so ask at most once a second.
        return this.#schedule(this.#began + SECOND - now(), () => this.#attempt("open"));
      }
      if (done) return this.#fail({ reason: "end" });
      next = reader.read(); // before the events are dispatched, because WebKit withholds a chunk until the next read
      next.catch(() => {}); // if the stream is dropped, nothing awaits it
      this.#listen();
      this.#failures = 0;
      const events = parser.push(value);
      greeted ||= events.length > 0;
      this.#retry = parser.retry ?? this.#retry;
      this.#notice(events);
      if (!current()) return;
      const [prev, cursor] = [this.cursor, parser.cursor];
      this.cursor = cursor;
      this.frame({ prev, cursor, events, beat: events.some(({ type }) => type === "rowcast.beat") });
      if (!current()) return;
    }
  }

  /** @param {FrameEvent[]} events */
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
    else if (alive) this.#change(this.#polls ? { state: "open", reason: "buffered" } : { state: "open" });
  }

  /** Polls for a time, because nothing of a stream was received. A proxy may withhold the stream, or there is no hub.
   * @param {Cause["reason"]} reason */
  #withheld(reason) {
    this.#pollUntil = now() + (this.#reason ? POLLING_ON : POLLING);
    if (this.#reason) this.#attempt("open"); // an attempt to return to a stream has failed
    else this.#fail({ reason });
  }

  /** Begins to wait for the next byte. */
  #listen() {
    this.#heard = Date.now();
    this.#watch();
  }

  /** Returns the time since the last byte was received. This includes the time in which the computer slept, so it uses Date.now(). If the
   * clock of the computer was set back, the time counts from now. */
  #silence() {
    const time = Date.now();
    return time - (this.#heard = Math.min(this.#heard, time));
  }

  // Watches for silence. It reads the clock each time, because the timers of a hidden page run late.
  #watch() {
    const [silence, late, limit] = [this.#silence(), LATE * this.#heartbeat, SILENCE * this.#patience * this.#heartbeat];
    if (silence >= limit) {
      this.#patience = Math.min(this.#patience * 2, 16);
      this.#pollUntil = 0;
      return this.#fail({ reason: "silence" });
    }
    this.#schedule((silence < late ? late : limit) - silence, () => this.#watch());
    if (silence >= late && this.#state === "open") this.#change({ state: "delayed", reason: "silence" });
  }

  /** Ends the attempt, and begins another one after a wait.
   * @param {Cause} cause
   * @param {number} [least] the shortest wait */
  #fail(cause, least = 0) {
    this.#drop();
    const failures = this.#failures++;
    const backoff = failures && SECOND + Math.random() * (Math.min(SECOND * 2 ** failures, BACKOFF) - SECOND);
    const asked = cause.reason === "silence" ? 0 : this.#retry;
    least = Math.max(least * (1 + Math.random() / 2), asked, this.#began + SECOND - now());
    least = Math.min(least, LONGEST_WAIT);
    this.#notBefore = now() + least;
    this.#cause = cause;
    this.#retryAfter(Math.max(backoff, least));
  }

  /** Waits for the next attempt, and reports the wait. */
  #retryAfter(wait) {
    this.#wait(wait);
    this.#change({ state: "retrying", ...this.#cause, retryAt: Date.now() + wait });
  }

  /** Ends the stream. Only open begins a new one.
   * @param {Status} status */
  #stop(status) {
    this.close();
    this.forget();
    this.#change(status);
  }

  #drop() {
    clearTimeout(this.#timer);
    this.#waiting = false;
    this.#heard = 0;
    this.#control?.abort();
    this.#control = undefined;
  }

  #wait(wait) {
    this.#waiting = true;
    this.#schedule(wait, () => this.#attempt("open"));
  }

  #schedule(wait, action) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(action, Math.max(wait, 0));
  }

  /** @param {Status} status */
  #change(status) {
    const reason = status.state === "open" ? status.reason : undefined;
    if (status.state === this.#state && status.state !== "retrying" && reason === this.#reason) return;
    this.#state = status.state;
    this.#reason = reason;
    this.status(status);
  }
}
