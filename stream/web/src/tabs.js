// One stream for all tabs. A Web Lock chooses one tab as the leader. The leader holds the stream, and sends its frames to the other
// tabs through a BroadcastChannel.
//
// A frame states a fact: a tab that has seen everything up to `prev`, and then receives `events`, has seen everything up to `cursor`.
// This fact does not depend on the order of messages, or on the tab that sends the frame. A tab keeps the cursors of what it has seen,
// usually one. It takes a frame if one of its cursors covers `prev`. It leaves out the rows that it has seen already, and adds
// `cursor`. If none of its cursors covers `prev`, the tab has missed something.

import { SECOND, SILENCE } from "./connection.js";
import { covers, read, seen } from "./cursor.js";
import { CONTROL, Notes, Recent, hash, isValid, parts } from "./messages.js";
import { Timers, listen } from "./page.js";
import { parse } from "./parser.js";

/** @import { Frame, FrameEvent, Status } from "../rowcast.d.ts" */
/** @typedef {FrameEvent & { note?: boolean }} Item an event; note is true for a NOTIFY message, which has no id of its own */
/** @typedef {{ open(): void, close(): void, check(): void }} Stream */
/** @typedef {{ frame: (frame: Frame) => void, status: (status: Status) => void, restored?: () => void }} Callbacks restored: the page was in the back/forward cache */

const OFFERS = 5 * SECOND; // how long a tab waits for the lock or the leader, and how long a tab without them keeps its stream when hidden
/** Shares one stream among the tabs of a browser. Each tab receives the rows that a stream of its own would bring. */
export class Tabs {
  #seen; // cursors, none of which covers another; [""] before the first
  #recent = new Recent();
  #timers;
  #notes = new Notes();
  #epoch = 0; // the number of the current leader; each leader has a higher one than the leaders before it
  #heard; // the leader's last message
  #count = 0; // messages of this leader that were sent or received
  #heartbeat = 15 * SECOND;
  #leads = false;
  #running = false;
  #asleep = false; // the page is frozen or in the back/forward cache
  #conn = /** @type {Stream} */ (undefined); // the tab's own stream, while the tab leads, is alone, learns its recipients, or has missed frames
  #at; // the cursor of the own stream
  #status = /** @type {Status} */ ({ state: "connecting" }); // the status of the own stream
  #why; // the reason of the state that was last reported, if that state is "open"
  #shown = ""; // the state that was last reported
  #retryAt; // its time, if that state is "retrying"
  #page; // ends the listeners of the page
  #group = ""; // the name of the lock and the channel
  #channel;
  #abort; // ends the request for the lock
  #release; // gives the lock back
  #asked = 0; // when this tab asked the leader
  #id = 0; // the number of that request, which the answer repeats
  #since = 0; // when the own stream began
  #opens = false; // this tab has joined, and has not heard a leader yet
  #deaf = 0; // until when the leader's messages without an id are ignored

  /** @param {(cursor: string, callbacks: Callbacks) => Stream} connect makes a stream
   * @param {{ name: string, user?: string, shared?: boolean, cursor?: string }} options The name is the address of the stream. The user
   *   is one of the recipients in rowcast.hello. Without a user, the tab first learns its recipients from a stream of its own.
   * @param {Callbacks} callbacks
   * @param {any} window */
  constructor(connect, { name, user, shared = true, cursor = "" }, { frame, status, restored }, window = globalThis) {
    this.connect = connect;
    this.name = name;
    this.user = user;
    this.shared = shared;
    this.frame = frame;
    this.status = status;
    this.restored = restored;
    this.window = window;
    this.#timers = new Timers(window);
    this.who = user === undefined ? undefined : hash(user);
    this.#seen = cursor.split(" ");
  }

  /** The cursor to resume from. Several cursors are separated by spaces. */
  get cursor() { return this.#seen.join(" "); }
  /** Whether the tab cannot share a stream and has its own. */
  alone = false;

  open() {
    this.#page ??= listen(this.window, {
      sleep: () => this.#sleep(),
      wake: (isRestored) => this.#wake(isRestored),
      check: () => this.check(),
      visible: () => this.#seeVisible(),
    });
    if (!this.#running) this.#resume();
    else if (this.#conn) this.#conn.open();
    else {
      this.#post({ t: "open" });
      this.#show({ state: "connecting" }); // until the leader answers
    }
  }

  close() {
    this.#page?.abort();
    this.#page = undefined;
    this.#pause();
  }

  /** Must be called when the page or the network wakes up. */
  check() {
    if (!this.#running) return;
    if (this.#conn) return this.#conn.check();
    this.#post({ t: "check" });
    this.#ask();
  }

  #sleep() {
    this.#asleep ||= this.#running && !isEnded({ state: this.#shown });
    this.#pause();
  }

  // Begins anew: after a freeze, the old stream may be dead without an error.
  #wake(isRestored) {
    if (isRestored) this.restored?.();
    if (this.#asleep) this.#resume();
    this.#asleep = false;
  }

  #resume() {
    this.#running = true;
    if (this.who === undefined || !this.shared) this.#connect();
    else this.#join();
  }

  // Ends the stream, and gives up the lock, the channel and the timers. A page in the back/forward cache must not receive messages.
  #pause() {
    this.#running = false;
    this.#disconnect();
    this.#leave();
  }

  #leave() {
    this.#leads = this.alone = false;
    this.#heard = undefined;
    const [abort, release, channel] = [this.#abort, this.#release, this.#channel];
    this.#abort = this.#release = this.#channel = undefined;
    abort?.abort();
    release?.();
    channel?.close();
    this.#epoch = this.#count = 0;
    this.#timers.clearAll();
  }

  #join() {
    const { window } = this;
    if (!window.navigator?.locks || !window.BroadcastChannel) return this.#beAlone();
    if (!this.#conn && !isOpen({ state: this.#shown })) this.#show({ state: "connecting" });
    if (!this.#running) return; // a listener of the page has closed the stream
    this.#group = `rowcast/1 ${hash(this.name)} ${this.who}`; // 1: the version of the messages
    try {
      this.#channel = new window.BroadcastChannel(this.#group);
    } catch {
      return this.#beAlone(); // Firefox refuses a channel if cookies are blocked
    }
    this.#opens = true;
    this.#channel.onmessage = ({ data }) => this.#hear(data);
    this.#queue();
    this.#timers.after("alone", OFFERS, () => this.#heard || this.#leads || this.#beAlone());
    this.#watch(SILENCE);
    this.#ask();
  }

  // Waits for the lock, or steals it.
  async #queue(steal = false) {
    const abort = (this.#abort = new AbortController());
    try {
      await this.window.navigator.locks.request(this.#group, steal ? { steal } : { signal: abort.signal }, (lock) => {
        if (lock && this.#abort === abort) return new Promise((release) => this.#lead(release));
      });
    } catch (error) {
      if (this.#abort !== abort) return;
      if (error?.name !== "AbortError") return this.#beAlone(); // the page may not use locks
      this.#leads = false; // another tab has stolen the lock, perhaps before this tab learned that it held the lock
      this.#timers.clearAll();
      this.#queue();
      this.#watch(SILENCE);
      this.#ask();
    }
  }

  #lead(release) {
    this.#release = release;
    this.#leads = true;
    this.alone = false;
    this.#epoch = Math.max(this.#epoch + 1, this.#now());
    this.#count = 0;
    this.#heard = undefined;
    this.#opens = false;
    this.#timers.clearAll();
    if (this.#conn) this.#say();
    else this.#connect();
    if (this.#leads) this.#tick(); // a listener of the page may have closed the stream
  }

  // Repeats the state of a stream that is not open. An open stream has heartbeats, which are relayed.
  #tick() {
    if (!isOpen(this.#status)) this.#say();
    this.#timers.after("tick", this.#heartbeat, () => this.#tick());
  }

  #beAlone() {
    this.alone = true;
    this.#connect();
    this.#seeVisible();
  }

  #seeVisible() {
    this.#timers.clear("hidden");
    if (!this.alone) return;
    if (!this.window.document?.hidden) this.#connect();
    else this.#timers.after("hidden", OFFERS, () => this.alone && !isEnded({ state: this.#shown }) && this.#disconnect());
  }

  #connect() {
    if (this.#conn || !this.#running) return;
    this.#at = this.#seen[0];
    this.#since = this.#now();
    const conn = (this.#conn = this.connect(this.#at, {
      frame: (frame) => conn === this.#conn && this.#receive(frame),
      status: (status) => {
        if (conn !== this.#conn) return;
        const { error, ...rest } = status; // some errors cannot be sent to other tabs
        this.#status = rest;
        this.#say();
        if (this.#leads) this.#timers.after("tick", this.#heartbeat, () => this.#tick()); // the interval may have become shorter
        if (status.state !== "connecting" || !isOpen({ state: this.#shown })) this.#show(status);
      },
    }));
    this.#say();
    conn.open();
  }

  #disconnect() {
    // A leader that was blocked may relay messages late that this tab has already received from its own stream.
    if (this.#conn && this.#now() > this.#since + SECOND) this.#deaf = Infinity;
    this.#conn?.close();
    this.#conn = undefined;
  }

  // Handles a frame of the own stream.
  #receive(frame) {
    let last = frame.prev;
    const events = frame.events.map((event) => {
      const note = event.lastEventId === last; // a message has no id of its own
      last = event.lastEventId;
      return { ...event, note };
    });
    const hello = events.find(({ type }) => type === "rowcast.hello");
    if (hello && !this.#identify(hello.data, frame.prev)) return;
    frame = { ...frame, events };
    this.#at = frame.cursor;
    this.#recent.add(frame);
    if (this.#leads) this.#relay(frame);
    this.#take(frame, true);
    if (!this.#conn) return; // a listener of the page has closed the stream
    if (this.shared && !this.#abort && !this.alone) this.#join();
    this.#settle();
  }

  // Learns the recipients from rowcast.hello. Returns false if the frame must not be delivered: the hub names another user than the
  // page, or the page has closed the stream. If the page names no user and the recipients have changed, the page is reset.
  #identify(data, prev) {
    const { recipients, heartbeat } = Object(parse(data));
    if (heartbeat > 0) this.#heartbeat = heartbeat * SECOND;
    if (!this.shared || !Array.isArray(recipients)) return true;
    if (this.user !== undefined) {
      if (recipients.includes(this.user)) return true;
      this.#pause();
      this.#show({ state: "signed-out" });
      return false;
    }
    const who = hash(JSON.stringify(recipients));
    if (this.who === who) return true;
    const change = this.who !== undefined;
    this.#leave();
    this.who = who;
    if (change) {
      this.#recent = new Recent();
      this.#seen = [prev];
      this.#reset("user", prev);
    }
    return !!this.#conn; // a listener of the page may have closed the stream
  }

  #reset(reason, cursor) {
    const type = "rowcast.reset";
    this.frame({ prev: cursor, cursor, events: [{ type, data: JSON.stringify({ reason }), lastEventId: cursor }], beat: false });
  }

  // Delivers the new events of a frame. Returns a false value if the tab has missed events before the frame. own: the frame is of the tab's
  // own stream. notes: the frame's NOTIFY messages are delivered.
  #take({ prev, cursor, events, beat }, own, notes = own) {
    const others = this.#seen.filter((c) => c !== prev);
    const next = others.length < this.#seen.length;
    const reset = events.some(({ type }) => type === "rowcast.reset");
    const known = others.length > 0 && !reset && others.some((c) => covers(c, cursor));
    let fits = known || next || others.some((c) => covers(c, prev));
    // Cursors of two epochs of the database cannot be compared. A reset holds only for the cursor of the stream that brought it, so the
    // other tabs open streams of their own.
    const epoch = cursor.split("-")[4];
    const broken = !known && others.some((c) => c.split("-")[4] !== epoch) && fits;
    if (others.length && (reset || broken)) {
      if (own && !reset) this.#reset("history", cursor);
      others.length = 0;
      fits = own;
    }
    if (own && !fits) return this.#disconnect(), this.#connect();
    if (!fits) events = events.filter(({ note }) => note);
    else if (!known) this.#seen = [cursor, ...others.filter((c) => !covers(cursor, c))];
    const views = others.map(read);
    events = events.filter((event) => event.note ? notes && (CONTROL.test(event.type) || this.#notes.add(event, own ? 0 : this.#epoch, this.#now()))
      : CONTROL.test(event.type) || !known && !views.some((c) => seen(c, read(event.lastEventId))));
    if (events.length || fits) this.frame({ prev, cursor: this.cursor, events, beat });
    return fits;
  }

  // Sends a frame to the other tabs. A long frame is divided into several frames.
  #relay(frame) {
    for (const part of parts(frame)) this.#say({ t: "frame", ...part });
  }

  #say(message = { t: "state" }) {
    if (!this.#leads) return;
    if (message.t !== "answer") this.#count++;
    this.#post({ ...message, epoch: this.#epoch, n: this.#count, at: message.cursor ?? this.#at, status: this.#status, heartbeat: this.#heartbeat });
  }

  #post(message) { this.#channel?.postMessage(message); }

  #hear(m) {
    if (m?.t === "ask" && this.#leads && Array.isArray(m.seen)) return this.#answer(m);
    if (this.#leads && /^(open|check)$/.test(m?.t)) return this.#conn?.[m.t]();
    if (this.#leads || !isValid(m) || m.epoch < this.#epoch) return;
    const answer = m.t === "answer";
    if (answer && m.to !== this.#id) return;
    if (m.epoch > this.#epoch) this.#count = 0;
    const late = m.n <= this.#count && !answer; // received twice, or after a later message
    this.#epoch = m.epoch;
    this.#count = Math.max(this.#count, m.n);
    if (!late) {
      this.#heard = m;
      this.#deaf = Math.min(this.#deaf, this.#now() + SECOND);
      if (m.heartbeat > 0) this.#heartbeat = m.heartbeat;
      if (!answer) this.#watch(SILENCE);
      if (this.#opens && isEnded(m.status)) this.#post({ t: "open" }); // the user may have signed in since the leader's stream ended
      else if (!this.#conn) this.#show(m.status);
      this.#opens = false;
    }
    if (!this.#seen[0]) this.#seen = [m.prev ?? m.at]; // a tab without a cursor begins here
    for (const frame of answer ? m.frames : m.t === "frame" ? [m] : []) this.#follow(frame, !answer && !late && !this.#conn && this.#now() >= this.#deaf);
    if (!this.#running) return; // a listener of the page has closed the stream
    if (this.#meets()) {
      this.#timers.clear("ask");
      this.#settle();
    } else if (m.at) {
      if (answer) this.#connect();
      else this.#ask();
    }
  }

  #follow(frame, notes) {
    if (this.#running && this.#take(frame, false, notes)) this.#recent.add(frame);
  }

  // Reports whether the leader's next frame will fit.
  #meets() { return !!this.#heard?.at && this.#seen.some((c) => covers(c, this.#heard.at)); }

  // Ends the own stream if the leader's stream can replace it.
  #settle() {
    if (this.#leads || !this.#conn || !this.#meets() || !isOpen(this.#heard.status)) return;
    this.alone = false;
    this.#disconnect();
    this.#show(this.#heard.status);
  }

  // Asks the leader for what this tab has missed.
  #ask() {
    const [now, help] = [this.#now(), () => this.#heard && !this.#leads && !this.#meets() && this.#connect()];
    if (this.#timers.has("ask")) return now > this.#asked + SECOND && help(); // the timers of a hidden tab are late
    if (this.#conn) return;
    this.#id = this.window.Math.random();
    this.#asked = now;
    this.#timers.after("ask", SECOND, help);
    this.#post({ t: "ask", id: this.#id, seen: this.#seen });
  }

  #answer({ id, seen: theirs }) {
    const known = (cursor) => theirs.some((c) => typeof c === "string" && covers(c, cursor));
    this.#say({ t: "answer", to: id, frames: known(this.#at) || !theirs[0] ? [] : this.#recent.after(known) });
  }

  // Waits for the leader's next message, and steals the lock if none comes. Answers do not count, because a frozen page may answer, too.
  #watch(heartbeats) {
    const due = this.#now() + heartbeats * this.#heartbeat;
    this.#timers.after("watch", heartbeats * this.#heartbeat, async () => {
      if (this.#now() > due + 2 * SECOND) return this.#watch(1); // the computer slept, or the tab is throttled
      const abort = this.#abort;
      await this.window.navigator.locks.query().catch(() => {}); // may evict a leader from the back/forward cache
      if (this.#abort === abort && abort && !this.#leads) this.#timers.after("watch", SECOND + SECOND * this.window.Math.random(), () => this.#steal());
    });
  }

  #steal() {
    const waiting = this.#abort;
    this.#abort = undefined;
    waiting?.abort();
    this.#queue(true);
  }

  #now() { return this.window.Date.now(); }

  /** @param {Status} status */
  #show(status) {
    const why = status.state === "open" ? status.reason : undefined;
    if (status.state === this.#shown && why === this.#why && status.retryAt === this.#retryAt) return; // a leader repeats its state
    this.#shown = status.state;
    this.#retryAt = status.retryAt;
    this.#why = why;
    this.status(this.alone ? { ...status, alone: true } : status);
  }
}

const isOpen = ({ state }) => /^(open|delayed)$/.test(state);
const isEnded = ({ state }) => /^(closed|signed-out|forbidden)$/.test(state);
