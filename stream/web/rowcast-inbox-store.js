// The list of a user's inbox with its state, without an element. README.md and rowcast-inbox.d.ts document it. Times are in milliseconds.

import { RowcastSource } from "./rowcast.js";

const SECOND = 1_000;
const ANSWER = 15 * SECOND; // the limit of a request
const SETTLE = 1.5 * SECOND; // the time after which no row is on its way that a count contains
const BACKOFF = 30 * SECOND;
export const MANY = 100; // the largest count of the hub, which means "more than 99"
const PAGE = 100; // the largest page of the hub
const LONGEST = 500; // rows of a list that grows while the page is open
const TRIES = 4; // requests until the list is loaded again, because the answers are older than what is known
const DONE = 20; // requests whose events may still arrive

/** What each action changes. */
const EFFECTS = {
  seen: { seen: true },
  read: { seen: true, read: true },
  unread: { read: false },
  archive: { archived: true },
  unarchive: { archived: false },
};

/** Reports whether an action of a version has no effect on a row, because newer changes are known. */
const isOld = (row, action, version) => Object.keys(EFFECTS[action]).every((field) => row.versions[field] >= version);
const changes = (row, action) => Object.entries(EFFECTS[action]).some(([field, value]) => row[field] !== value);

function urlOf(option, value, base) {
  try {
    return new URL(value, base);
  } catch {
    throw new TypeError(`the option ${option} is not a URL, or is relative outside of a page: ${value}`);
  }
}

/** The newest rows of a user, with their state. Each field of a state has a version: an event or answer that is not newer does not change
 * the field. Operations that the hub has not answered lie over the rows, so an operation that fails leaves no trace. */
export class RowcastInbox extends EventTarget {
  #options;
  #events;
  #inbox;
  #source;
  #state = "closed";
  #error;
  #run = 0; // the number of loads, for answers that arrive late
  #list = /** @type {any} */ ({}); // the last answer with the first page
  #user; // the user of the list. The hub refuses a request if the credential belongs to another user
  #failures = 0;
  #timers = /** @type {Record<string, any>} */ ({});
  #rows = /** @type {any[]} */ ([]); // the newest first
  #waiting = /** @type {any[]} */ ([]); // rows that have arrived while hold was set
  #hold = false;
  #deleted = new Set();
  #cursor; // what the list shows
  #before = null;
  #paging; // the request for the next page
  #counts = { version: 0, unseen: 0, unread: 0 };
  #counted = 0; // when the counts came from somewhere else than the list
  #arrived = 0; // when the last row arrived
  #moves = 0; // the number of changes of the counts
  #ops = /** @type {any[]} */ ([]); // operations without an answer, in their order
  #done = /** @type {any[]} */ ([]); // the last operations with an answer
  #sending = Promise.resolve();
  #seeing; // the operation that collects seen rows
  #sawAt = 0;
  #token;
  #skew = 0; // the time of the hub minus the time of this machine
  #view; // the items that are shown
  #notified = true;

  constructor(options = {}) {
    super();
    this.#options = options;
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    this.#events = urlOf("events", options.events ?? "/events", base);
    this.#inbox = options.inbox ? urlOf("inbox", options.inbox, base) : new URL(this.#events);
    if (options.token && typeof options.token !== "function") throw new TypeError("the option token must be a function that returns a token");
    if (!options.inbox) this.#inbox.pathname = this.#inbox.pathname.replace(/[^/]*$/, "inbox");
    for (const url of [this.#events, this.#inbox]) for (const name of [...url.searchParams.keys()]) if (/^topic/i.test(name)) url.searchParams.delete(name);
    globalThis.addEventListener?.("online", this.#online);
    this.load();
  }

  /** The rows that are not archived, the newest first. */
  get items() {
    return (this.#view ??= this.#shown(this.#rows).filter((row) => !row.archived));
  }

  /** The number of rows that have arrived while hold was set. */
  get waiting() {
    return this.#shown(this.#waiting).filter((row) => !row.archived).length;
  }

  get unseenCount() {
    return this.#count("seen");
  }

  get unreadCount() {
    return this.#count("read");
  }

  /** Reports whether loadMore would load more rows. */
  get hasMore() {
    return this.#before !== null;
  }

  /** The state of the stream, or "loading" or "failed". */
  get state() {
    return this.#state;
  }

  /** The error of the last request for the list. */
  get error() {
    return this.#error;
  }

  /** The URL of the list. */
  get url() {
    return this.#inbox.href;
  }

  /** The stream, or undefined. After load, it is another one. */
  get source() {
    return this.#source;
  }

  /** Returns the time of the hub. */
  now() {
    return Date.now() + this.#skew;
  }

  /** While hold is set, new rows wait and do not move the list. */
  get hold() {
    return this.#hold;
  }

  set hold(hold) {
    this.#hold = hold;
    if (!hold) this.showWaiting();
  }

  showWaiting() {
    if (!this.#waiting.length) return;
    this.#rows.unshift(...this.#waiting.splice(0));
    this.#cursor = this.#source?.lastEventId || this.#cursor;
    this.#changed();
  }

  /** Loads the list, and opens the stream at the list's cursor. The rows of the stream follow those of the list without gap or repetition. */
  async load() {
    const run = ++this.#run;
    clearTimeout(this.#timers.retry);
    this.#source?.close();
    if (this.#state !== "open" && this.#state !== "delayed") this.#become("loading");
    const limit = Math.min(PAGE, Math.max(this.#options.limit ?? 20, this.#rows.length + this.#waiting.length));
    try {
      const list = await this.#request("GET", "", { limit });
      if (run !== this.#run) return;
      this.#replace(list);
    } catch (error) {
      if (run === this.#run) this.#failed(error);
    }
  }

  #replace(list) {
    this.#list = list;
    this.#user = list.user;
    for (const op of this.#ops) op.extended = true;
    this.#rows = list.items.map((item) => this.#row(item, list.version));
    this.#waiting = [];
    this.#deleted.clear();
    this.#counts = { version: list.version, unseen: list.unseen, unread: list.unread };
    this.#before = list.before;
    this.#cursor = list.cursor;
    this.#paging = this.#error = undefined;
    this.#failures = this.#counted = 0;
    this.#open();
    this.#changed();
  }

  #row({ id, recipient, event, data, created_at, seen, read, too_large = false }, version) {
    return { id, recipient, event, data, time: new Date(created_at), seen, read, archived: false, too_large, versions: { seen: version, read: version, archived: version } };
  }

  #failed(error) {
    this.#error = error;
    const { status } = error;
    if (status === 403) this.#become("forbidden");
    else if (status >= 400 && status < 500 && ![408, 409, 425, 429].includes(status)) this.#become("failed");
    else {
      const wait = Math.min(SECOND * 2 ** this.#failures++, BACKOFF) * (1 + Math.random());
      this.#timers.retry = setTimeout(() => this.load(), Math.max(wait, (error.retryAfter ?? 0) * SECOND));
      this.#become("retrying");
    }
  }

  /** Empties the list, because the user has signed out, or another user has signed in. load() shows the inbox of the present user. */
  #signOut(error) {
    if (this.#state === "closed") return;
    this.#run++;
    clearTimeout(this.#timers.retry);
    this.#source?.close();
    this.#source = this.#user = this.#token = this.#cursor = this.#paging = undefined;
    this.#list = {};
    [this.#rows, this.#waiting, this.#ops, this.#done, this.#before] = [[], [], [], [], null];
    this.#counts = { version: 0, unseen: 0, unread: 0 };
    this.#error = error;
    this.#become("signed-out");
  }

  #online = () => {
    if (this.#state === "retrying" && this.#error) this.load();
  };

  #open() {
    const { withCredentials, token } = this.#options;
    const source = new RowcastSource(this.#events, { lastEventId: this.#cursor, withCredentials, token: token && ((why) => this.#ask(why)) });
    this.#source = source;
    const on = (name, listener) => source.addEventListener(name, (event) => this.#source === source && listener(event));
    on("rowcast.state", ({ state, error }) => {
      if (state === "signed-out") this.#signOut(error);
      else if (state !== "connecting") this.#become(state);
    });
    on("rowcast.reset", () => this.load());
    on("rowcast.event", (event) => event.id !== undefined && this.#arrive(event));
    on("rowcast.inbox", ({ data }) => this.#apply(data));
    on("rowcast.beat", () => this.#follow());
  }

  /** Closes the stream. The list receives no more changes. */
  close() {
    this.#run++;
    this.#list = {};
    this.#source?.close();
    this.#source = undefined;
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    globalThis.removeEventListener?.("online", this.#online);
    this.#become("closed");
  }

  #follow() {
    if (!this.#waiting.length) this.#cursor = this.#source?.lastEventId || this.#cursor;
  }

  #arrive({ name, data, lastEventId, time }) {
    const [id] = /^\d+/.exec(lastEventId); // as text, because a large number would be rounded
    if (this.#find(id)) return;
    const tooLarge = name === "rowcast.toolarge";
    const row = this.#row({ id, event: name, data: tooLarge ? null : data, created_at: time ?? this.now(), seen: false, read: false, too_large: tooLarge }, 0);
    (this.#hold ? this.#waiting : this.#rows).unshift(row);
    const { unseen, unread, version } = this.#counts;
    this.#counts = { version, unseen: Math.min(unseen + 1, MANY), unread: Math.min(unread + 1, MANY) };
    this.#arrived = Date.now();
    if (this.#arrived - this.#counted < SETTLE) this.#recount();
    this.#follow();
    this.#changed();
    this.dispatchEvent(new CustomEvent("row", { detail: this.#shown([row])[0] }));
    if (this.#rows.length > LONGEST) this.load();
  }

  /** Applies a rowcast.inbox event. */
  #apply(event) {
    const { action, ids, version } = event;
    if (action === "reload") return version <= this.#list.version || this.load();
    if (action === "delete") this.#remove(ids);
    else if (action in EFFECTS) {
      const covered = ids ?? this.#covered(event);
      if (!covered || (action === "unarchive" && !ids.every((id) => this.#find(id)))) return this.load();
      this.#set(new Set(covered), action, version);
      this.#setCounts(event);
    }
    this.#follow();
    this.#changed();
  }

  /** Returns the ids of the rows of the list that a cursor contains. Cursors cannot be compared here, so this is undefined unless the
   * cursor is one that the list has had. */
  #covered({ action, up_to, version }) {
    const all = [...this.#rows, ...this.#waiting];
    if (all.every((row) => isOld(row, action, version))) return [];
    const op = [...this.#ops, ...this.#done].find((op) => op.action === action && op.all === up_to && !op.extended && (op.version ?? version) === version);
    return op?.ids ?? (up_to === this.#cursor ? this.#rows.map(({ id }) => id) : undefined);
  }

  #remove(ids) {
    for (const id of ids) this.#deleted.add(id);
    const stays = ({ id }) => !this.#deleted.has(id);
    this.#rows = this.#rows.filter(stays);
    this.#waiting = this.#waiting.filter(stays);
    this.#recount();
  }

  #find(id) {
    return this.#rows.find((row) => row.id === id) ?? this.#waiting.find((row) => row.id === id);
  }

  #set(ids, action, version) {
    for (const row of [...this.#rows, ...this.#waiting]) {
      if (!ids.has(row.id)) continue;
      for (const [field, value] of Object.entries(EFFECTS[action])) {
        if (version > row.versions[field]) [row[field], row.versions[field]] = [value, version];
      }
    }
  }

  /** Takes the counts of an event or an answer. It may count rows that have not arrived yet, or miss some that have. */
  #setCounts({ version, unseen, unread }) {
    if (!(version > this.#counts.version)) return;
    this.#counts = { version, unseen, unread };
    this.#counted = Date.now();
    if (this.#counted - this.#arrived < SETTLE) this.#recount();
  }

  /** Asks for the counts when everything has arrived. If the answers stay old, the list is loaded again. */
  #recount(tries = 0) {
    clearTimeout(this.#timers.recount);
    this.#timers.recount = setTimeout(async () => {
      const [run, moves] = [this.#run, this.#moves];
      const list = await this.#request("GET", "", { limit: 1 }).catch(() => undefined);
      if (run !== this.#run) return;
      if (!list) return this.#recount(tries + 1);
      if (moves !== this.#moves || this.#ops.length) return this.#recount();
      if (list.version < this.#counts.version) return tries < TRIES ? this.#recount(tries + 1) : this.load();
      this.#counts = { version: list.version, unseen: list.unseen, unread: list.unread };
      this.#changed();
    }, Math.min(SETTLE * 2 ** tries, BACKOFF));
  }

  /** Returns rows as they are after the operations that have no answer. */
  #shown(rows) {
    return rows.map((row) => {
      const { versions, ...shown } = row;
      for (const { ids, action } of this.#ops) if (ids.has(row.id)) Object.assign(shown, EFFECTS[action]);
      return shown;
    });
  }

  /** Returns the number of rows that are not seen or not read. A list with all rows is counted. Otherwise the hub has counted, and the
   * operations without an answer change its number. */
  #count(field) {
    const base = [...this.#rows, ...this.#waiting];
    const count = (rows) => rows.filter((row) => !row.archived && !row[field]).length;
    const shown = count(this.#shown(base));
    const number = this.#counts[field === "seen" ? "unseen" : "unread"];
    if (!this.hasMore || this.#ops.some(({ all, action }) => all && (action !== "seen" || field === "seen"))) return Math.min(shown, MANY);
    return number >= MANY ? MANY : Math.max(number + shown - count(base), shown, 0);
  }

  seen(ids) {
    const fresh = this.#changing("seen", ids);
    if (!fresh.length) return Promise.resolve(true);
    if (!this.#seeing) {
      const op = (this.#seeing = { action: "seen", ids: new Set(), user: this.#user });
      this.#ops.push(op);
      op.saved = new Promise((resolve) => {
        this.#timers.seen = setTimeout(() => {
          this.#seeing = undefined;
          this.#sawAt = Date.now();
          resolve(this.#send(op));
        }, Math.max(this.#sawAt + SECOND - Date.now(), 0));
      });
    }
    for (const id of fresh) this.#seeing.ids.add(id);
    this.#changed();
    return this.#seeing.saved;
  }

  read(ids) {
    return this.#mark("read", ids);
  }

  unread(ids) {
    return this.#mark("unread", ids);
  }

  archive(ids) {
    return this.#mark("archive", ids);
  }

  unarchive(ids) {
    return this.#mark("unarchive", ids);
  }

  /** Marks all rows as read that the list shows, or could show after loadMore. Rows that wait are not among them. */
  readAll() {
    return this.#all("read");
  }

  archiveAll() {
    return this.#all("archive");
  }

  #changing(action, ids) {
    const shown = new Map(this.#shown([...this.#rows, ...this.#waiting]).map((row) => [row.id, row]));
    return [...ids].filter((id) => !shown.has(id) || changes(shown.get(id), action));
  }

  #mark(action, ids) {
    const fresh = this.#changing(action, ids);
    return fresh.length ? this.#begin({ action, ids: new Set(fresh) }) : Promise.resolve(true);
  }

  #all(action) {
    return this.#begin({ action, ids: new Set(this.#rows.map(({ id }) => id)), all: this.#cursor });
  }

  #begin(op) {
    op.user = this.#user;
    this.#ops.push(op);
    this.#changed();
    return (op.saved = this.#send(op));
  }

  /** Sends an operation after those before it. The result is false if it failed. */
  #send(op) {
    const sent = this.#sending.then(async () => {
      try {
        const answer = await this.#request("POST", "/" + op.action, op.all === undefined ? { ids: [...op.ids] } : { all: op.all }, op.user);
        this.#finish(op, answer);
        return true;
      } catch (error) {
        this.#finish(op);
        this.dispatchEvent(Object.assign(new Event("error"), { error, action: op.action }));
        if (error.status === 409) this.load();
        return false;
      }
    });
    this.#sending = sent.then(() => {});
    return sent;
  }

  #finish(op, answer) {
    this.#ops = this.#ops.filter((other) => other !== op);
    if (answer && op.user === this.#user) {
      this.#set(op.ids, op.action, answer.version);
      this.#setCounts(answer);
      if (op.all !== undefined && op.extended && answer.version > this.#list.version) this.load();
      this.#done = [...this.#done, Object.assign(op, { undo: answer.undo, version: answer.version })].slice(-DONE);
    }
    this.#changed();
  }

  /** Undoes the last read, archive, readAll or archiveAll of this page. The result is false if nothing was undone. */
  async undo() {
    const op = [...this.#done, ...this.#ops].findLast(({ action, undone }) => !undone && (action === "read" || action === "archive"));
    if (!op || !(await op.saved) || !op.undo) return false;
    op.undone = true;
    const overlay = { action: op.action === "read" ? "unread" : "unarchive", ids: op.ids };
    if (op.all === undefined) this.#ops.push(overlay);
    this.#changed();
    try {
      const answer = await this.#request("POST", "/undo", { undo: op.undo }, op.user);
      if (op.user !== this.#user) return answer.undone;
      const field = op.action === "read" ? "read" : "archived";
      const same = [...op.ids].filter((id) => this.#find(id)?.versions[field] === op.version); // the hub skips rows that have changed since
      if (answer.undone && op.all === undefined) this.#set(new Set(same), overlay.action, answer.version);
      if (answer.undone && op.all !== undefined && answer.version > this.#list.version) this.load();
      this.#setCounts(answer);
      return answer.undone;
    } catch (error) {
      op.undone = false;
      this.dispatchEvent(Object.assign(new Event("error"), { error, action: "undo" }));
      return false;
    } finally {
      this.#ops = this.#ops.filter((other) => other !== overlay);
      this.#changed();
    }
  }

  /** Loads the next page. */
  loadMore() {
    if (!this.hasMore) return Promise.resolve(true);
    return (this.#paging ??= this.#nextPage(this.#list));
  }

  async #nextPage(list) {
    try {
      let page;
      for (let tries = 0; ; tries++) {
        page = await this.#request("GET", "", { limit: this.#options.limit ?? 20, before: this.#before });
        if (list !== this.#list) return false;
        if (!(page.version < this.#counts.version)) break; // otherwise changes have overtaken the page
        if (tries === TRIES) {
          this.load();
          return false;
        }
        await new Promise((resolve) => setTimeout(resolve, (SECOND / 8) * 2 ** tries));
      }
      if (list !== this.#list) return false;
      this.#rows.push(...page.items.filter(({ id }) => !this.#find(id) && !this.#deleted.has(id)).map((item) => this.#row(item, page.version)));
      this.#before = page.before;
      for (const op of this.#ops) op.extended = true; // "all" may contain rows of the page
      return true;
    } catch (error) {
      if (list === this.#list) this.dispatchEvent(Object.assign(new Event("error"), { error, action: "list" }));
      return false;
    } finally {
      if (list === this.#list) {
        this.#paging = undefined;
        this.#changed();
      }
    }
  }

  async #ask(why) {
    if (why !== "open" || this.#token === undefined) this.#token = (await this.#options.token(why)) || "";
    return this.#token;
  }

  async #request(method, path, values, user = this.#user, why = "open") {
    const { token, withCredentials } = this.#options;
    const url = new URL(this.#inbox);
    const headers = /** @type {Record<string, string>} */ ({ Accept: "application/json" });
    const init = /** @type {RequestInit} */ ({ method, headers, cache: "no-store", credentials: withCredentials ? "include" : "same-origin", signal: AbortSignal.timeout(ANSWER) });
    if (token && (await this.#ask(why))) headers.Authorization = `Bearer ${this.#token}`;
    url.pathname += path;
    if (user !== undefined) url.searchParams.set("user", user);
    if (method === "POST") {
      headers["Content-Type"] = "application/json";
      Object.assign(init, { body: JSON.stringify(values), keepalive: true }); // a click on a link leaves the page
    } else for (const [name, value] of Object.entries(values)) url.searchParams.set(name, value);
    const response = await fetch(url, init);
    const date = Date.parse(response.headers.get("Date"));
    if (date) this.#skew = Math.abs(date - Date.now()) > 2 * SECOND ? date - Date.now() : 0; // the header has whole seconds
    if (response.status === 401 && token && why === "open") return this.#request(method, path, values, user, "refused");
    if (response.ok) return response.json();
    const retryAfter = +response.headers.get("Retry-After") || 0;
    const error = Object.assign(new Error((await response.text()).trim() || `status ${response.status}`), { status: response.status, retryAfter });
    if ([401, 412].includes(error.status) && user === this.#user) this.#signOut(error);
    throw error;
  }

  #become(state) {
    if (state === "open") this.#error = undefined;
    this.#state = state;
    this.#changed();
  }

  /** Dispatches one change event for all changes of a task. */
  #changed() {
    this.#view = undefined;
    this.#moves++;
    if (!this.#notified) return;
    this.#notified = false;
    queueMicrotask(() => {
      this.#notified = true;
      this.dispatchEvent(new Event("change"));
    });
  }
}
