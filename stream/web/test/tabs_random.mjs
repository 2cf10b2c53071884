// Plays random schedules of tabs, and checks what each tab receives.
import { Browser, Clock, Connection, Page, seeded } from "./browser.mjs";
import { Database, Hub, parse, seen, text } from "./cursors.mjs";

const HEARTBEAT = 2_000;
const USERS = ["alice", "alice", "alice", "bob", "*", "carol"];

/** Plays a schedule and returns a list of faults, which is empty if all went well. */
export async function play(seed, { Tabs, kinds = {}, log, onError } = {}) {
  const world = new World(seed, Tabs, kinds, log);
  world.onError = onError;
  await world.play();
  return world.errors;
}

class World {
  errors = [];
  open = []; // transactions
  causes = 0; // the number of resets that a tab may receive
  sent = new Map(); // messages -> users

  constructor(seed, Tabs, kinds, log) {
    const random = seeded(seed);
    Object.assign(this, { Tabs, log, random, clock: new Clock(), database: new Database() });
    this.kinds = { named: random() < 0.5, faults: random() < 0.4, users: random() < 0.2, epochs: random() < 0.15, horizon: random() < 0.15,
      lockless: random() < 0.1, notes: random() < 0.3, silent: seeded(~seed)() < 0.3, ...kinds };
    this.hubs = Array.from({ length: random() < 0.5 ? 1 : 2 }, () => new Hub(this.database));
    this.browser = new Browser(this.clock, random, this.hubs, HEARTBEAT);
    if (this.kinds.faults) this.browser.faults = { lost: 0.05, doubled: 0.1, swapped: 0.1 };
    for (const hub of this.hubs) {
      this.every(HEARTBEAT, () => hub.beat());
    }
  }

  every(ms, run) {
    const next = () => this.clock.at(this.clock.now + ms, () => {
      run();
      next();
    });
    next();
  }

  error(message) {
    this.errors.push(`${Math.round(this.clock.now - 1e6)} ms: ${message}`);
    this.onError?.();
  }

  pick(list) { return list[Math.floor(this.random() * list.length)]; }

  async play() {
    const { clock, random } = this;
    for (let i = 1 + random() * 4; i > 0; i--) this.newTab();
    const steps = 20 + random() * 40;
    for (let i = 0; i < steps; i++) {
      await this.run(random() < 0.1 ? 6_000 * random() : 150 * random());
      this.act();
    }
    await this.calm();
    await this.handOver();
    await this.end();
  }

  run(ms) {
    return this.clock.runUntil(this.clock.now + ms);
  }

  // The database.

  write() {
    const { database, random, open } = this;
    if (open.length < 4 && random() < 0.4) open.push(database.begin());
    const transaction = this.pick(open);
    if (!transaction) return;
    database.insert(transaction, this.pick(USERS));
    if (random() < 0.5) this.commit(transaction, random() < 0.9);
  }

  commit(transaction, commits) {
    this.open.splice(this.open.indexOf(transaction), 1);
    this.database.end(transaction, commits);
    for (const hub of this.hubs) {
      hub.wakeUp ??= this.clock.at(this.clock.now + 5 + 100 * this.random() ** 3, () => {
        hub.wakeUp = undefined;
        hub.fetch();
      });
    }
  }

  // The database loses its last transactions, and assigns their numbers again.
  failOver() {
    const { database, random } = this;
    for (const transaction of this.open.splice(0)) database.end(transaction, false);
    const lost = database.next.xid - Math.floor(random() * 8);
    database.rows = database.rows.filter((row) => row.xid < lost);
    database.next.xid = Math.max(100, lost);
    this.lost = ++database.epoch; // cursors of earlier epochs are not valid
    for (const page of this.browser.tabs) page.complete = 0;
    for (const hub of this.hubs) hub.reset("history");
  }

  burst() {
    for (let i = this.random() * (this.kinds.notes ? 20 : 3); i > 1; i--) this.clock.at(this.clock.now + 300 * this.random(), () => this.note());
    for (let i = 2 + this.random() * 16; i > 0; i--) this.clock.at(this.clock.now + 300 * this.random(), () => this.write());
  }

  note() {
    const data = JSON.stringify(`note ${this.sent.size}`);
    const user = this.pick(USERS);
    this.sent.set(data, user);
    for (const hub of this.hubs) this.clock.at(this.clock.now + 20 * this.random(), () => hub.note(user, data));
  }

  // The tabs.

  newTab() {
    const { random, browser, database } = this;
    const page = new Page(browser);
    page.lockless = this.kinds.lockless && random() < 0.5;
    const cursor = random() < 0.3 ? "" : random() < 0.5 ? text(database.cursor()) : this.old ?? "";
    if (random() < 0.3) this.old = text(database.cursor());
    page.name = `tab ${browser.tabs.length}`;
    page.hidden = random() < 0.4;
    page.throttled = random() < 0.1;
    Object.assign(page, { got: new Set(), notes: new Set(), resets: 0, complete: 0, identity: this.kinds.named ? browser.user : undefined });
    if (cursor) page.base = parse(cursor);
    page.log?.(`opens at ${cursor}`);
    const connect = (from, callbacks) => new Connection(page, from, callbacks);
    page.client = new this.Tabs(connect, { name: "/events", user: this.kinds.named ? browser.user : undefined, cursor },
      { frame: (frame) => this.check(page, frame), status: ({ state }) => { page.state = state; } }, browser.window(page));
    page.task(() => page.client.open());
  }

  act() {
    const { random, browser } = this;
    const live = browser.tabs.filter((page) => !page.dead && !page.gone);
    const page = this.pick(live);
    const chance = random();
    const does = (what) => this.log?.(`${Math.round(this.clock.now - 1e6)} ms: ${page?.name ?? ""} ${what}`);
    if (chance < 0.4) return does("burst"), this.burst();
    if (chance < 0.5) return does("note"), this.note();
    if (chance < 0.56 && live.length < 7) return does("new"), this.newTab();
    if (!page) return;
    if (chance < 0.6) return does("closes"), this.close(page);
    if (chance < 0.65) return does("crashes"), page.crash();
    if (chance < 0.72) return does("freezes"), page.freeze();
    if (chance < 0.78) return page.frozen && (does("thaws"), page.thaw());
    if (chance < 0.82) return does("loops"), page.loop(random() < 0.5 ? 500 * random() : 12_000 * random());
    if (chance < 0.88) return does("hidden or visible"), page.hide(!page.hidden);
    if (chance < 0.92) return does("cut"), this.cut(page);
    if (chance < 0.94 && this.kinds.users) {
      browser.user = browser.user === "alice" ? "bob" : "alice";
      this.causes++;
      does(`signs in as ${browser.user}`);
    } else if (chance < 0.96 && this.kinds.epochs) {
      does("restart");
      this.causes++;
      if (random() < 0.5) this.database.epoch++;
      else this.failOver();
    } else if (chance < 0.98 && this.kinds.horizon) {
      this.database.horizon = this.database.snapshot().xip[0] ?? this.database.next.xid;
      this.causes += 3;
      does("horizon");
    } else {
      browser.refuses = !browser.refuses;
      does(`hub ${browser.refuses ? "away" : "back"}`);
    }
  }

  close(page) {
    page.gone = true;
    page.task(() => {
      page.client.close();
      this.clock.at(this.clock.now + 50, () => page.dead || this.nothingLeft(page));
    }, "frozen too");
  }

  nothingLeft(page) {
    const { held, queues, channels } = this.browser;
    const left = { timers: page.timers.size, streams: page.streams.size, listeners: page.listeners.size,
      channels: [...channels].filter((channel) => channel.tab === page).length,
      locks: [...held.values()].filter((request) => request.tab === page && request.granted).length,
      requests: [...queues.values()].flat().filter((request) => request.tab === page).length };
    for (const [what, n] of Object.entries(left)) if (n > 0) this.error(`${page.name} has ${n} ${what} after close()`);
  }

  // Ends the streams of a page. If silent is true, the page does not learn this, as when a network loses the packets.
  cut(page) {
    for (const stream of page.streams) this.kinds.silent ? stream.end() : stream.cut();
  }

  // The checks.

  check(page, { events }) {
    if (page.closed) this.error(`${page.name} received a frame after close()`);
    page.gotten = true;
    for (const event of events) {
      if (event.type === "rowcast.reset") this.reset(page, event);
      else if (event.type === "message" && event.data.startsWith('"')) this.checkNote(page, event.data);
      else if (event.type === "message") this.checkRow(page, JSON.parse(event.data));
    }
    // If there are two cursors after the first frame, the first is at the end of the frame, and the tab began at the last.
    page.base ??= page.client.cursor ? parse(page.client.cursor.split(" ").at(-1)) : undefined;
  }

  reset(page, { data, lastEventId }) {
    if (++page.resets > this.causes) this.error(`${page.name} was reset without a cause: ${data}`);
    page.base = parse(lastEventId);
    page.got.clear();
    page.complete = 0; // all rows before this index of database.rows were received, or are not expected
    if (JSON.parse(data).reason === "user") page.identity = [...page.streams].at(-1)?.user;
  }

  checkNote(page, data) {
    if (page.notes.has(data)) this.error(`${page.name} received ${data} twice`);
    page.notes.add(data);
    this.own(page, this.sent.get(data));
  }

  own(page, user) {
    if (user !== "*") page.identity ??= user;
    if (user !== "*" && user !== page.identity) this.error(`${page.name} of ${page.identity} received an event of ${user}`);
  }

  checkRow(page, row) {
    this.own(page, row.user);
    if (page.got.has(row.id)) this.error(`${page.name} received row ${row.id} twice`);
    if (page.base && page.base.epoch === this.database.epoch && seen(page.base, row)) this.error(`${page.name} received row ${row.id}, which its cursor had seen`);
    page.got.add(row.id);
    if (!page.base || page.base.epoch < this.lost || row.epoch < this.lost) return;
    // Rows that were committed before the transaction of this row began must come first.
    const { rows } = this.database;
    while (page.complete < rows.length && (!this.expects(page, rows[page.complete]) || page.got.has(rows[page.complete].id))) page.complete++;
    if (page.complete < row.needs) this.error(`${page.name} received row ${row.id} before row ${rows[page.complete].id}`);
  }

  expects(page, row) { return page.base && !seen(page.base, row) && (row.user === "*" || row.user === page.identity); }

  complete(page) {
    if (page.state === "signed-out" && this.kinds.users && this.kinds.named) return;
    if (page.base?.epoch < this.lost) this.error(`${page.name} was not reset after rows were lost`);
    for (const row of this.database.rows) {
      if (this.expects(page, row) && !page.got.has(row.id)) this.error(`${page.name} missed row ${row.id} of ${row.user} (${page.client.cursor})`);
    }
  }

  // Ends all faults, and checks that each tab has received all rows.
  async calm() {
    const { browser } = this;
    browser.refuses = false;
    browser.faults = { lost: 0, doubled: 0, swapped: 0 };
    for (const page of browser.tabs) {
      if (page.dead) continue;
      if (page.frozen) page.thaw();
      page.throttled = false;
    }
    await this.run(13_000);
    for (const page of this.live()) page.hide(false);
    while (this.open.length > 0) this.commit(this.open[0], true);
    await this.run(6 * HEARTBEAT);
    for (const page of this.live()) this.complete(page);
    this.oneStream("in the end");
  }

  live() { return this.browser.tabs.filter((page) => !page.dead && !page.gone); }

  oneStream(when) {
    if (this.kinds.lockless || this.kinds.users) return;
    const open = this.live().reduce((n, page) => n + page.streams.size, 0);
    if (this.live().length > 0 && open !== 1) this.error(`${open} streams ${when}, want 1`);
  }

  async handOver() {
    const leader = this.live().find((page) => page.streams.size > 0);
    if (!leader || this.kinds.users || this.kinds.lockless) return;
    this.burst();
    await this.run(100 * this.random());
    const way = Math.floor(this.random() * 4); // 0 crashes the leader, 1 closes it, 2 freezes it, and 3 blocks it in a loop
    const before = this.browser.opened;
    this.log?.(`${Math.round(this.clock.now - 1e6)} ms: last hand-over of ${leader.name} in way ${way}`);
    if (way === 0) leader.crash();
    else if (way === 1) this.close(leader);
    else if (way === 2) leader.freeze();
    else leader.loop(60_000);
    const rest = this.live().filter((page) => page !== leader).length;
    await this.run(way === 3 ? 2.5 * HEARTBEAT + 2_100 : 200);
    if (rest > 0 && this.browser.opened === before) this.error(`no new stream after way ${way}`);
    await this.run(1_000);
    if (way < 3 && rest > 0) {
      const open = this.live().reduce((n, page) => n + page.streams.size, 0);
      if (open !== 1) this.error(`${open} streams a second after a hand-over in way ${way}, want 1`);
    }
    if (way === 2) leader.thaw();
    while (this.open.length > 0) this.commit(this.open[0], true);
    await this.run(way === 3 ? 70_000 : 5_000);
    for (const page of this.live()) this.complete(page);
    this.oneStream("after the last hand-over");
  }

  async end() {
    for (const page of this.live()) this.close(page);
    await this.run(1_000);
    if (this.browser.channels.size > 0) this.error("a channel is open in the end");
    if (this.browser.held.size > 0) this.error(`a lock is held in the end by ${[...this.browser.held.values()].map(({ tab, granted, aborted }) => `${tab.name} (dead: ${tab.dead}, granted: ${granted}, aborted: ${aborted})`)}`);
    if ([...this.browser.queues.values()].some((queue) => queue.length > 0)) this.error("a lock is requested in the end");
  }
}
