// A fake hub for the tests: it takes the place of fetch and of the clock.
import { RowcastSource } from "../src/index.js";

/** Runs everything that is ready to run. */
export async function settle() {
  for (let i = 0; i < 5; i++) await new Promise(setImmediate);
}

/** Makes Node look like a page, and returns a function that dispatches its events. */
export function page(t) {
  const window = new EventTarget();
  globalThis.addEventListener = window.addEventListener.bind(window);
  globalThis.document = Object.assign(new EventTarget(), { hidden: false, baseURI: "http://hub.example/" });
  t.after(() => {
    delete globalThis.addEventListener;
    delete globalThis.document;
  });
  const targets = { freeze: document, resume: document, visibilitychange: document };
  return (type, properties) => (targets[type] ?? window).dispatchEvent(Object.assign(new Event(type), properties));
}

/** A Hub records the requests of one test. Time passes only in the methods pass and wait. */
export class Hub {
  requests = [];
  random = 0.5;
  ahead = 0; // milliseconds by which the clock of the computer is fast

  constructor(t) {
    this.t = t;
    t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
    const { now } = Date;
    t.mock.method(performance, "now", () => now() - 1_799_999_999_000);
    t.mock.method(Date, "now", () => now() + this.ahead);
    t.mock.method(Math, "random", () => this.random);
    t.mock.method(globalThis, "fetch", (url, init) => new Promise((resolve, reject) => this.requests.push(new Request(url, init, resolve, reject))));
  }

  /** Opens a source, which is closed at the end of the test. */
  open(options, url = "http://hub.example/events") {
    const source = new RowcastSource(url, options);
    source.states = [];
    source.heard = [];
    source.onstate = ({ state, reason, status }) => source.states.push([state, reason ?? status].filter(Boolean).join(" "));
    source.onevent = ({ name, data }) => source.heard.push([name, data]);
    this.t.after(() => source.close());
    return source;
  }

  /** Returns the newest request. It fails if there are not exactly n requests. */
  async request(n) {
    await settle();
    if (this.requests.length !== n) throw new Error(`there are ${this.requests.length} requests, want ${n}`);
    return this.requests[n - 1];
  }

  /** Lets time pass, step by step, because a timer may start another one. */
  async pass(seconds) {
    for (let left = seconds * 1_000; left > 0; left -= 250) {
      await settle();
      this.t.mock.timers.tick(Math.min(left, 250));
    }
    await settle();
  }

  /** Lets time pass until the next request, and returns the number of seconds, rounded down to a quarter. */
  async wait(limit = 700) {
    const before = this.requests.length;
    await settle();
    this.t.mock.timers.tick(1); // a timer of 0 s
    for (let seconds = 0; seconds < limit; seconds += 0.25) {
      await settle();
      if (this.requests.length > before) return seconds;
      this.t.mock.timers.tick(250);
    }
    throw new Error(`no request within ${limit} seconds`);
  }
}

class Request {
  #resolve;
  #controller;
  aborted = false;

  constructor(url, init, resolve, reject) {
    this.url = new URL(url);
    this.headers = init.headers;
    this.init = init;
    this.#resolve = resolve;
    this.fail = () => reject(new TypeError("failed to fetch"));
    init.signal.addEventListener("abort", () => {
      this.aborted = true;
      reject(init.signal.reason);
      this.#controller?.error(init.signal.reason);
    });
  }

  get cursor() {
    return this.headers["Last-Event-ID"] ?? this.url.searchParams.get("last_event_id") ?? "";
  }

  answer(status, headers = {}) {
    const body = status === 204 ? null : new ReadableStream({ start: (controller) => (this.#controller = controller) });
    this.#resolve(new Response(body, { status, headers }));
    return this;
  }

  /** Begins a stream with rowcast.hello. */
  greet(cursor = "1-c", heartbeat = 15) {
    this.answer(200, { "Content-Type": "text/event-stream" });
    return this.send(`:\n\nevent: rowcast.hello\ndata: {"recipients":["alice"],"heartbeat":${heartbeat}}\nid: ${cursor}\n\n`);
  }

  /** Sends text or bytes as one chunk. */
  send(chunk) {
    this.#controller.enqueue(typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk);
    return this;
  }

  row(id, data = id, event = "message") {
    return this.send(`event: ${event}\ndata: ${JSON.stringify(data)}\nid: ${id}-c\n\n`);
  }

  end() {
    this.#controller.close();
  }

  break() {
    this.#controller.error(new TypeError("network error"));
  }
}
