// A simulated browser with a fake clock: tabs, locks, channels and streams.
import { text } from "./cursors.mjs";

/** Returns a generator of numbers from 0 to 1. */
export function seeded(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** A Clock runs tasks in the order of their times. */
export class Clock {
  now = 1_000_000;
  tasks = []; // a heap
  count = 0;

  at(time, run) {
    const task = { time, n: this.count++, run };
    const heap = this.tasks;
    let i = heap.push(task) - 1;
    for (let up; i > 0 && before(task, heap[up = (i - 1) >> 1]); i = up) heap[i] = heap[up];
    heap[i] = task;
    return task;
  }

  pop() {
    const [heap, first] = [this.tasks, this.tasks[0]];
    const last = heap.pop();
    if (heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let down = 2 * i + 1;
      if (down + 1 < heap.length && before(heap[down + 1], heap[down])) down++;
      if (down >= heap.length || !before(heap[down], last)) break;
      heap[i] = heap[down];
      i = down;
    }
    heap[i] = last;
    return first;
  }

  async runUntil(end) {
    await settled();
    while (this.tasks.length > 0 && this.tasks[0].time <= end) {
      const task = this.pop();
      this.now = Math.max(this.now, task.time);
      if (!task.run) continue;
      task.run();
      await settled();
    }
    this.now = end;
  }
}

async function settled() { for (let i = 0; i < 8; i++) await null; } // lets the callbacks of promises run

const before = (a, b) => a.time < b.time || a.time === b.time && a.n < b.n;

/** A browser with its tabs. faults has the probabilities that a message is lost, doubled or overtaken. */
export class Browser {
  tabs = [];
  held = new Map(); // name -> request
  queues = new Map(); // name -> requests
  channels = new Set();
  user = "alice"; // the user that is signed in
  faults = { lost: 0, doubled: 0, swapped: 0 };
  opened = 0; // the number of streams that were opened

  constructor(clock, random, hubs, heartbeat) { Object.assign(this, { clock, random, hubs, heartbeat }); }

  delay(low, high) { return this.clock.now + low + this.random() * (high - low); }

  // Locks.

  request(tab, name, options, callback) {
    return new Promise((resolve, reject) => {
      const request = { tab, name, callback, resolve, reject };
      options.signal?.addEventListener("abort", () => {
        const queue = this.queues.get(name) ?? [];
        if (queue.includes(request)) queue.splice(queue.indexOf(request), 1);
        if (!request.granted) reject(new DOMException("", "AbortError"));
        request.aborted = true;
      });
      this.clock.at(this.delay(0, 5), () => {
        if (request.aborted || tab.dead) return;
        if (!this.queues.has(name)) this.queues.set(name, []);
        if (options.steal) {
          const old = this.held.get(name);
          this.held.delete(name);
          if (old) old.tab.task(() => old.reject(new DOMException("", "AbortError")));
          this.queues.get(name).unshift(request);
        } else {
          this.queues.get(name).push(request);
        }
        this.grant(name);
      });
    });
  }

  grant(name) {
    const queue = this.queues.get(name) ?? [];
    if (this.held.has(name) || queue.length === 0) return;
    const request = queue.shift();
    this.held.set(name, request);
    this.clock.at(this.delay(0, 15), () => request.tab.task(() => {
      if (this.held.get(name) !== request) return;
      if (request.aborted) return this.release(request);
      request.granted = true;
      Promise.resolve(request.callback({ name })).then((value) => {
        request.resolve(value);
        this.release(request);
      });
    }));
  }

  release(request) {
    this.clock.at(this.delay(0, 5), () => {
      if (this.held.get(request.name) !== request) return;
      this.held.delete(request.name);
      this.grant(request.name);
    });
  }

  drop(tab) {
    for (const [name, queue] of this.queues) {
      this.queues.set(name, queue.filter((request) => request.tab !== tab));
      if (this.held.get(name)?.tab === tab) this.release(this.held.get(name));
    }
  }

  // Channels: the messages of one sender arrive in order, unless there are faults.

  channel(tab, name) {
    const channel = { tab, name, onmessage: null, due: new Map() };
    this.channels.add(channel);
    channel.close = () => { channel.closed = true; this.channels.delete(channel); };
    channel.postMessage = (message) => {
      if (channel.closed) throw new DOMException("closed", "InvalidStateError");
      const data = JSON.parse(JSON.stringify(message));
      for (const to of this.channels) {
        if (to === channel || to.name !== name) continue;
        const { lost, doubled, swapped } = this.faults;
        if (this.random() < lost) continue;
        for (let n = this.random() < doubled ? 2 : 1; n > 0; n--) this.deliver(channel, to, data, this.random() < swapped);
      }
    };
    return channel;
  }

  deliver(from, to, data, swapped) {
    let time = this.delay(0, 20);
    if (swapped) time += 200 * this.random();
    else from.due.set(to, time = Math.max(time, from.due.get(to) ?? 0));
    this.clock.at(time, () => {
      if (from.tab.dead && from.tab.swallows) return;
      to.tab.task(() => to.closed || to.onmessage?.({ data }), "frozen too");
    });
  }

  /** Returns the window of a page. */
  window(page) {
    const browser = this;
    const listen = (type, listener, { signal }) => {
      const entry = { type, listener };
      page.listeners.add(entry);
      signal.addEventListener("abort", () => page.listeners.delete(entry));
    };
    return {
      navigator: page.lockless ? undefined : {
        locks: {
          request: (name, options, callback) => this.request(page, name, options, callback),
          query: async () => ({ held: [], pending: [] }),
        },
      },
      BroadcastChannel: class {
        constructor(name) {
          if (page.channelless) throw new DOMException("", "SecurityError");
          return browser.channel(page, name);
        }
      },
      setTimeout: (f, ms) => page.timer(f, ms),
      clearTimeout: (timer) => timer && page.clear(timer),
      Date: { now: () => this.clock.now },
      Math: { ...Math, max: Math.max, random: this.random },
      document: { get hidden() { return page.hidden; }, addEventListener: listen },
      addEventListener: listen,
    };
  }
}

/** A page. Its tasks run at once, or later if the page is frozen or in a long loop. */
export class Page {
  timers = new Set();
  waiting = [];
  streams = new Set();
  listeners = new Set();
  hidden = false;

  constructor(browser) {
    this.browser = browser;
    browser.tabs.push(this);
  }

  task(run, whileFrozen = false) {
    if (this.dead) return;
    if (this.looping || this.frozen && !whileFrozen) this.waiting.push(() => this.task(run, whileFrozen));
    else run();
  }

  hear(type) { for (const entry of this.listeners) if (entry.type === type) entry.listener({ type }); }

  runWaiting() { for (const run of this.waiting.splice(0)) run(); }

  timer(f, ms) {
    const timer = {};
    this.timers.add(timer);
    // The timers of a hidden page run at full seconds, or at full minutes if the page has been hidden for long.
    let time = this.browser.clock.now + ms;
    if (this.hidden) time = Math.ceil(time / (this.throttled ? 60_000 : 1_000)) * (this.throttled ? 60_000 : 1_000);
    timer.task = this.browser.clock.at(time, () => this.task(() => {
      if (this.timers.delete(timer)) f();
    }));
    return timer;
  }

  clear(timer) {
    this.timers.delete(timer);
    timer.task.run = undefined;
  }

  hide(hidden) {
    this.hidden = hidden;
    this.task(() => this.hear("visibilitychange"));
  }

  freeze() {
    if (this.looping) return;
    this.hear("freeze");
    this.frozen = true;
    for (const stream of this.streams) stream.deaf = true;
  }

  thaw() {
    this.frozen = false;
    this.hear("resume");
    this.runWaiting();
  }

  loop(ms) {
    if (this.looping || this.frozen) return;
    this.looping = true;
    this.browser.clock.at(this.browser.clock.now + ms, () => {
      this.looping = false;
      this.runWaiting();
    });
  }

  crash() {
    this.dead = true;
    this.swallows = this.browser.random() < 0.5;
    for (const timer of this.timers) this.clear(timer);
    for (const stream of this.streams) stream.end();
    for (const channel of this.browser.channels) if (channel.tab === this) this.browser.channels.delete(channel);
    this.browser.drop(this);
  }
}

/** Simulates the class Connection of src/connection.js: a stream that is opened again after a failure. */
export class Connection {
  constructor(page, cursor, { frame, status }) {
    Object.assign(this, { page, cursor, frame, status, browser: page.browser });
  }

  open() {
    if (this.closed) return;
    this.retrying = this.refused = false;
    const { browser, page } = this;
    const { clock, random, hubs } = browser;
    this.stop();
    const stream = this.stream = { user: browser.user, due: 0, hub: hubs[Math.floor(random() * hubs.length)] };
    page.streams.add(stream);
    browser.opened++;
    stream.end = () => {
      stream.ended = true;
      page.streams.delete(stream);
      stream.hub.streams.delete(stream);
    };
    stream.cut = () => {
      stream.hub.streams.delete(stream);
      page.task(() => stream.ended || this.cut());
    };
    stream.send = (events) => {
      for (let i = 0; i < events.length;) {
        const n = 1 + Math.floor(random() * 4);
        const part = events.slice(i, i += n);
        stream.due = Math.max(stream.due, browser.delay(1, 20));
        clock.at(stream.due, () => !stream.ended && !stream.deaf && page.task(() => stream.ended || this.receive(part)));
      }
    };
    clock.at(browser.delay(2, 40), () => {
      if (stream.ended) return;
      if (browser.refuses) return page.task(() => this.cut());
      stream.hub.join(stream, this.cursor, browser.heartbeat / 1000);
      page.task(() => stream.ended || this.status({ state: "open" }));
    });
    this.watch();
  }

  receive(part) {
    const prev = this.cursor;
    const events = part.map(({ type, data, id }) => {
      this.cursor = id ?? this.cursor;
      return { type, data, lastEventId: this.cursor };
    });
    this.watch();
    this.frame({ prev, cursor: this.cursor, events, beat: events.some(({ type }) => type === "rowcast.beat") });
  }

  watch() {
    if (this.timer) this.page.clear(this.timer);
    this.heard = this.browser.clock.now;
    this.timer = this.page.timer(() => this.open(), 2.5 * this.browser.heartbeat);
  }

  cut() {
    if (this.closed) return;
    this.stop();
    this.retrying = true;
    this.timer = this.page.timer(() => this.open(), 1_000 * this.browser.random());
    this.status({ state: "retrying" });
  }

  stop() {
    if (this.timer) this.page.clear(this.timer);
    this.stream?.end();
  }

  /** Ends the stream as if the hub had answered with 401. */
  refuse() {
    this.stop();
    this.refused = true;
    this.status({ state: "signed-out" });
  }

  check() {
    if (this.refused) return;
    if (this.browser.clock.now > this.heard + 2.5 * this.browser.heartbeat || this.retrying) this.open();
  }

  close() {
    this.closed = true;
    this.stop();
  }
}

export { text };
