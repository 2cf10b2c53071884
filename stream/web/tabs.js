// One stream for all tabs. A Web Lock chooses the leader. It holds the stream, and relays its frames by BroadcastChannel.
//
// A frame says: whoever has seen what `prev` has seen, and then receives `events`, has seen what `cursor` has seen. That is true whoever
// sends it, so no tab needs to know the order of messages, or who leads. A tab keeps the cursors of what it has seen, usually one. It
// takes a frame if one of them covers `prev`, leaves out the rows that the others have seen, and adds `cursor`. All else is a gap.

const [PART, RECENT, PATIENCE] = [1e6, 5e5, 2.5]; // characters of a message and of the recent frames; heartbeats until a leader is dead
const CONTROL = /^rowcast\.(void|hello|beat|bye)$/; // for the tab that holds the stream only
const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/** Reads a cursor, see listener/cursor/text.go. An unknown form is undefined: then only equal texts cover each other. */
function parse(text) {
  const [id, xid, xmax, list, epoch, anchor] = text.split("-");
  if (!anchor || !/^\d+ \d+ \d+$/.test(`${id} ${xid} ${xmax}`)) return;
  const flying = new Set();
  let [above, gap] = [BigInt(xmax), 0n];
  for (const c of list.slice(1)) {
    const digit = DIGITS.indexOf(c);
    if (digit < 0) return;
    gap = gap * 32n + BigInt(digit & 31);
    if (digit & 32) continue;
    flying.add(above -= gap + 1n);
    gap = 0n;
  }
  return { id: BigInt(id), xid: BigInt(xid), xmax: BigInt(xmax), flying, epoch };
}

const seenAll = (c, xid) => xid < c.xmax && xid !== c.xid && !c.flying.has(xid);
const seen = (c, { xid, id }) => c.xid && xid === c.xid ? id <= c.id : seenAll(c, xid);

/** Reports whether a reader at cursor a has seen all that a reader at cursor b has seen. */
export function covers(a, b) {
  if (a === b) return true;
  [a, b] = [parse(a), parse(b)];
  return !!a && !!b && a.epoch === b.epoch && a.xmax >= b.xmax && ![...a.flying].some((xid) => seenAll(b, xid)) &&
    !(a.xid && seenAll(b, a.xid)) && (!b.xid || seen(a, b));
}

const hash = (text, h = 0n) => {
  for (const c of text) h = ((h ^ BigInt(c.codePointAt(0))) * 0x100000001b3n + 1n) % (1n << 89n);
  return h.toString(36);
};

/** What Tabs needs of a browser. */
export const browser = () => ({
  locks: globalThis.navigator?.locks,
  channel: globalThis.BroadcastChannel && ((name) => new BroadcastChannel(name)),
  setTimeout: (f, ms) => setTimeout(f, ms),
  clearTimeout: (id) => clearTimeout(id),
  now: () => Date.now(),
  random: Math.random,
  hidden: () => globalThis.document?.visibilityState === "hidden",
  /** Calls f with the type of each event of the page's life; returns a function that ends it. */
  life(f) {
    const types = { freeze: "document", resume: "document", visibilitychange: "document", pagehide: "window", pageshow: "window" };
    const each = (what) => Object.entries(types).forEach(([type, at]) => globalThis[at]?.[what](type, on));
    const on = (event) => f(event.type);
    each("addEventListener");
    return () => each("removeEventListener");
  },
});

export class Tabs {
  #seen; // cursors, none of which covers another; [""] before the first
  #recent = []; // the last frames, rows only
  #kept = 0; // their characters
  #timers = {};
  #notes = []; // the last messages without an id
  #epoch = 0; // the number of the leader
  #heard; // the leader's last message
  #count = 0; // messages of this leader that were sent or received
  #heartbeat = 15_000;
  #leads = false;
  #running = false;
  #conn; // the tab's own stream: it leads, has not met the leader's stream yet, or is alone
  #at; // the cursor of the own stream
  #state; // of the own stream
  #shown;

  /** @param connect (cursor, { frame, status }) => a Connection
   * @param name the address of the stream
   * @param user the user as rowcast.hello names it. Without it, the tab learns its user from a stream of its own first. */
  constructor(connect, { name, user, cursor = "" }, { frame, status }, env = browser()) {
    Object.assign(this, { connect, name, user, frame, status, env });
    this.who = user === undefined ? undefined : hash(user);
    this.#seen = cursor.split(" ");
  }

  /** The cursor to resume from. Several cursors are separated by spaces. */
  get cursor() { return this.#seen.join(" "); }
  /** Whether the tab cannot share a stream and has its own. */
  alone = false;

  open() {
    this.unlisten ??= this.env.life((type) => {
      if (type === "freeze" || type === "pagehide") this.#pause();
      else if (type === "visibilitychange") this.#seeVisible();
      else if (!this.#running) this.#resume();
    });
    this.#resume();
  }

  close() {
    this.unlisten?.();
    this.unlisten = undefined;
    this.#pause();
    this.#show("closed");
  }

  /** Looks after the stream, for example after the network came back. */
  check() {
    if (!this.unlisten) return;
    if (!this.#running) this.#resume();
    else if (this.#conn) this.#conn.check();
    else {
      this.#post({ t: "check" });
      this.#ask();
    }
  }

  #resume() {
    this.#running = true;
    if (this.who === undefined) this.#connect();
    else this.#join();
  }

  // Leaves no stream, lock, channel or timer. A page in the back/forward cache must not receive a message.
  #pause() {
    this.#running = false;
    this.#disconnect();
    this.#leave();
  }

  #leave() {
    this.#leads = this.alone = false;
    this.#heard = undefined;
    const { abort, release, channel } = this;
    this.abort = this.release = this.channel = undefined;
    abort?.abort();
    release?.();
    channel?.close();
    this.#epoch = this.#count = 0;
    this.#clearAll();
  }

  #join() {
    const { locks, channel } = this.env;
    if (!locks || !channel) return this.#beAlone();
    const name = `rowcast/1 ${hash(this.name)} ${this.who}`; // 1: the version of the messages
    this.group = name;
    this.channel = channel(name);
    this.channel.onmessage = ({ data }) => this.#hear(data);
    this.#queue();
    this.#after("alone", 5_000, () => this.#heard || this.#leads || this.#beAlone());
    this.#watch(PATIENCE);
    this.#ask();
  }

  // Waits for the lock, or steals it.
  async #queue(steal = false) {
    const abort = this.abort = new AbortController();
    try {
      await this.env.locks.request(this.group, steal ? { steal } : { signal: abort.signal }, (lock) => {
        if (lock && this.abort === abort) return new Promise((release) => this.#lead(release));
      });
    } catch (error) {
      if (this.abort !== abort) return;
      if (error?.name !== "AbortError") return this.#beAlone(); // refused
      this.#leads = false; // another tab has stolen the lock, possibly before this one heard that it had it
      this.#clearAll();
      this.#queue();
      this.#watch(PATIENCE);
      this.#ask();
    }
  }

  #lead(release) {
    this.release = release;
    this.#leads = true;
    this.alone = false;
    this.#epoch = Math.max(this.#epoch + 1, this.env.now());
    this.#count = 0;
    this.#heard = undefined;
    this.#clearAll();
    if (this.#conn) this.#say();
    else this.#connect();
    const tick = () => {
      if (!/open|delayed/.test(this.#state)) this.#say(); // otherwise the server's heartbeats are relayed
      this.#after("tick", this.#heartbeat, tick);
    };
    tick();
  }

  #beAlone() {
    this.alone = true;
    this.#connect();
    this.#seeVisible();
  }

  #seeVisible() {
    this.#clear("hidden");
    if (!this.alone) return;
    if (!this.env.hidden()) this.#connect();
    else this.#after("hidden", 5_000, () => this.alone && this.#disconnect());
  }

  #connect() {
    if (this.#conn || !this.#running) return;
    this.#at = this.#seen[0];
    this.#state = "connecting";
    this.since = this.env.now();
    const conn = this.#conn = this.connect(this.#at, {
      frame: (frame) => conn === this.#conn && this.#receive(frame),
      status: (state, ...more) => {
        if (conn !== this.#conn) return;
        this.#state = state;
        this.#say();
        this.#show(state, ...more);
      },
    });
    this.#say();
    conn.open();
  }

  #disconnect() {
    this.#conn?.close();
    this.#conn = undefined;
  }

  // Receives a frame of the own stream.
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
    this.#remember(frame);
    if (this.#leads) this.#relay(frame);
    this.#take(frame, true);
    if (!this.#conn) return; // the page has closed it
    if (!this.abort && !this.alone) this.#join();
    this.#settle();
  }

  // Learns the user from rowcast.hello. Events of another user are neither relayed nor delivered.
  #identify(data, prev) {
    const { recipients, heartbeat } = typeof data === "string" ? JSON.parse(data) : data;
    if (heartbeat > 0) this.#heartbeat = heartbeat * 1000;
    if (this.user !== undefined) {
      if (recipients.includes(this.user)) return true;
      this.#pause();
      this.#show("signed-out");
      return false;
    }
    const who = hash(JSON.stringify(recipients));
    if (this.who === who) return true;
    const change = this.who !== undefined;
    this.#leave();
    this.who = who;
    if (change) {
      this.#recent = [];
      this.#kept = 0;
      this.#seen = [prev];
      this.#reset("user", prev);
    }
    return !!this.#conn; // the page may have closed it
  }

  #reset(reason, cursor) {
    const type = "rowcast.reset";
    this.frame({ prev: cursor, cursor, events: [{ type, data: JSON.stringify({ reason }), lastEventId: cursor }], beat: false });
  }

  // Delivers what is new of a frame. Returns false if there is a gap before it.
  #take({ prev, cursor, events, beat }, own, notes = own) {
    const others = this.#seen.filter((c) => c !== prev);
    const next = others.length < this.#seen.length;
    const reset = events.some(({ type }) => type === "rowcast.reset");
    const known = others.length > 0 && !reset && others.some((c) => covers(c, cursor));
    let fits = known || next || others.some((c) => covers(c, prev));
    // Rows of two epochs of the database cannot be compared. After a reset, other tabs ask the hub themselves.
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
    const views = others.map(parse);
    events = events.filter((event) => event.note ? notes && (CONTROL.test(event.type) || this.#isNew(event, own))
      : CONTROL.test(event.type) || !known && !views.some((c) => c && seen(c, parse(event.lastEventId) ?? {})));
    if (events.length || fits) this.frame({ prev, cursor: this.cursor, events, beat });
    return fits;
  }

  // Reports whether a message without an id is new. Around a change of the leader, two streams may bring it.
  #isNew({ type, data }, own) {
    const [now, source] = [this.env.now(), own ? 0 : this.#epoch];
    const key = JSON.stringify([type, data]);
    this.#notes = this.#notes.filter(({ at }) => now - at < 3_000).slice(-99);
    const twin = this.#notes.find((n) => n.key === key && !n.from.includes(source));
    if (twin) twin.from.push(source);
    else this.#notes.push({ key, at: now, from: [source] });
    return !twin;
  }

  #remember({ prev, cursor, events }) {
    const rows = events.filter(({ type, note }) => !note && !CONTROL.test(type));
    const last = this.#recent.at(-1);
    if (!rows.length && last?.cursor === prev) last.cursor = cursor;
    else this.#kept += size(this.#recent[this.#recent.push({ prev, cursor, events: rows }) - 1].events);
    while (this.#kept > RECENT) this.#kept -= size(this.#recent.shift().events);
  }

  // Sends a frame to the other tabs, in parts that are true statements too.
  #relay({ prev, cursor, events }) {
    let [part, sum] = [[], 0];
    for (const event of events) {
      if (CONTROL.test(event.type)) continue;
      const length = size([event]);
      if (part.length && sum + length > PART) {
        const end = part.at(-1).lastEventId;
        this.#say({ t: "frame", prev, cursor: end, events: part });
        [part, sum, prev] = [[], 0, end];
      }
      part.push(event);
      sum += length;
    }
    this.#say({ t: "frame", prev, cursor, events: part });
  }

  #say(message = { t: "state" }) {
    if (!this.#leads) return;
    if (message.t !== "answer") this.#count++;
    this.#post({ ...message, epoch: this.#epoch, n: this.#count, at: message.cursor ?? this.#at, state: this.#state, heartbeat: this.#heartbeat });
  }

  #post(message) { this.channel?.postMessage(message); }

  #hear(m) {
    if (m?.t === "ask" && this.#leads && Array.isArray(m.seen)) return this.#answer(m);
    if (m?.t === "check" && this.#leads) return this.#conn?.check();
    if (this.#leads || !isValid(m) || m.epoch < this.#epoch) return;
    const answer = m.t === "answer";
    if (answer && m.to !== this.id) return;
    if (m.epoch > this.#epoch) this.#count = 0;
    const late = m.n <= this.#count && !answer; // doubled or overtaken
    this.#epoch = m.epoch;
    this.#count = Math.max(this.#count, m.n);
    if (!late) {
      this.#heard = m;
      if (m.heartbeat > 0) this.#heartbeat = m.heartbeat;
      if (!answer) this.#watch(PATIENCE);
      if (!this.#conn) this.#show(m.state);
    }
    if (!this.#seen[0]) this.#seen = [m.prev ?? m.at]; // a tab without a cursor begins here
    for (const frame of answer ? m.frames : m.t === "frame" ? [m] : []) this.#follow(frame, !answer && !late && !this.#conn && !(this.env.now() < this.deaf));
    if (!this.#running) return; // the page has closed it
    if (this.#meets()) {
      this.#clear("ask");
      this.#settle();
    } else if (m.at) {
      if (answer) this.#connect();
      else this.#ask();
    }
  }

  #follow(frame, notes) {
    if (this.#running && this.#take(frame, false, notes)) this.#remember(frame);
  }

  // Reports whether the leader's next frame will fit.
  #meets() { return !!this.#heard?.at && this.#seen.some((c) => covers(c, this.#heard.at)); }

  // Ends the own stream once the leader's serves.
  #settle() {
    if (this.#leads || !this.#conn || !this.#meets() || !/open|delayed/.test(this.#heard.state)) return;
    this.alone = false;
    this.#disconnect();
    // A leader that was stuck may still relay messages that the own stream has brought.
    if (this.env.now() > this.since + 1_000) this.deaf = this.env.now() + 1_000;
    this.#show(this.#heard.state);
  }

  // Asks the leader for what this tab has missed.
  #ask() {
    const [now, help] = [this.env.now(), () => this.#heard && !this.#leads && !this.#meets() && this.#connect()];
    if (this.#timers.ask) return now > this.asked + 1_000 && help(); // the timers of a hidden tab are late
    if (this.#conn) return;
    this.id = this.env.random();
    this.asked = now;
    this.#after("ask", 1_000, help);
    this.#post({ t: "ask", id: this.id, seen: this.#seen });
  }

  #answer({ id, seen: theirs }) {
    const known = (cursor) => theirs.some((c) => typeof c === "string" && covers(c, cursor));
    const first = known(this.#at) || !theirs[0] ? -1 : this.#recent.findLastIndex(({ prev }) => known(prev));
    this.#say({ t: "answer", to: id, frames: first < 0 ? [] : this.#recent.slice(first) });
  }

  // Waits for the next sign of life of the leader's stream. Answers are none: a frozen page gives them too.
  #watch(heartbeats) {
    const due = this.env.now() + heartbeats * this.#heartbeat;
    this.#after("watch", heartbeats * this.#heartbeat, async () => {
      if (this.env.now() > due + 2_000) return this.#watch(1); // the computer slept, or the tab is throttled
      const { abort } = this;
      await this.env.locks.query().catch(() => {}); // evicts a leader from the back/forward cache
      if (this.abort === abort && abort && !this.#leads) this.#after("watch", 1_000 + 1_000 * this.env.random(), () => this.#steal());
    });
  }

  #steal() {
    const waiting = this.abort;
    this.abort = undefined;
    waiting?.abort();
    this.#queue(true);
  }

  #after(name, ms, f) {
    this.#clear(name);
    this.#timers[name] = this.env.setTimeout(() => {
      delete this.#timers[name];
      f();
    }, ms);
  }

  #clearAll() { for (const name in this.#timers) this.#clear(name); }

  #clear(name) {
    this.env.clearTimeout(this.#timers[name]);
    delete this.#timers[name];
  }

  #show(state, ...more) {
    if (state === this.#shown && !more.length) return;
    this.#shown = state;
    this.status(state, ...more);
  }
}

const size = (events) => events.reduce((sum, { data }) => sum + (typeof data === "string" ? data : JSON.stringify(data) ?? "").length + 200, 200);

const isFrame = (f) => typeof f?.prev === "string" && typeof f.cursor === "string" && Array.isArray(f.events) &&
  f.events.every((e) => typeof e?.type === "string" && typeof e.lastEventId === "string");

const isValid = (m) => Number.isFinite(m?.epoch) && Number.isFinite(m.n) && typeof m.at === "string" && typeof m.state === "string" &&
  (m.t === "state" || m.t === "frame" && isFrame(m) || m.t === "answer" && Array.isArray(m.frames) && m.frames.every(isFrame));
