// The list of a user's inbox with its state, without an element. README.md and rowcast-inbox-store.d.ts document it.

import { RowcastSource } from "../../../rowcast.js";
import { Client } from "./client.js";
import { Operations } from "./operations.js";
import { Rows, isChange } from "./rows.js";

const SECOND = 1_000;
const SETTLE = 1.5 * SECOND; // how long a row may take to arrive after an event or answer has counted it
const BACKOFF = 30 * SECOND;
const LONGEST_WAIT = 600 * SECOND; // the longest wait, even if the server asks for more. A timer cannot wait for 25 days
const PAGE = 100; // the largest page of the hub
const LONGEST = 500; // the list is loaded again if it has more rows than this. While hold is set, only waiting rows count
const TRIES = 4; // the list is loaded again after this number of repeated requests whose answers were all too old

/** Returns the URL of an option. */
function urlOf(option, value, base) {
  try {
    if (typeof value === "string" || value instanceof URL) return new URL(value, base);
  } catch {}
  throw new TypeError(`the option ${option} must be a URL, and an absolute one outside of a page, such as "https://app.example/events": ${value}`);
}

function check({ token, withCredentials, limit } = /** @type {any} */ ({})) {
  if (token != null && typeof token !== "function") throw new TypeError("the option token must be a function that returns a token");
  if (withCredentials != null && typeof withCredentials !== "boolean") throw new TypeError("the option withCredentials must be true or false");
  if (limit != null && !(Number.isInteger(limit) && limit >= 1 && limit <= PAGE)) throw new TypeError(`the option limit must be a number from 1 to ${PAGE}`);
}

/** The newest rows of a user, with their state. */
export class RowcastInbox extends EventTarget {
  #options;
  #events;
  #client;
  #rows = new Rows();
  #operations;
  #source;
  #state = /** @type {import("../../../rowcast-inbox-store.js").InboxState} */ ("closed");
  #error;
  #run = 0; // the number of the current load; answers to earlier ones are ignored
  #failures = 0;
  #timers = /** @type {Record<string, any>} */ ({});
  #hold = false;
  #paging; // the request for the next page
  #counted = 0; // when the last counts came from an event or from the answer to a change
  #arrived = 0; // when the last row arrived
  #moves = 0; // the number of changes of this object. Counts that were requested before a change are not used
  #view; // the items that are shown
  #notified = true;

  constructor(options = /** @type {import("../../../rowcast-inbox-store.js").InboxOptions} */ ({})) {
    super();
    if (options === null || typeof options !== "object") throw new TypeError('RowcastInbox needs an object with options, such as { events: "/events" }');
    check(options);
    this.#options = options;
    const base = globalThis.document?.baseURI ?? globalThis.location?.href;
    this.#events = urlOf("events", options.events ?? "/events", base);
    const inbox = options.inbox ? urlOf("inbox", options.inbox, base) : new URL(this.#events);
    if (!options.inbox) inbox.pathname = inbox.pathname.replace(/[^/]*$/, "inbox");
    for (const url of [this.#events, inbox]) for (const name of [...url.searchParams.keys()]) if (/^topic/i.test(name)) url.searchParams.delete(name);
    this.#client = new Client(inbox, options, (error, user) => user === this.#rows.user && this.#signOut(error));
    this.#operations = new Operations(this.#rows, this.#client, {
      changed: () => this.#changed(),
      load: () => this.#reload(),
      counts: (answer) => this.#setCounts(answer),
      failed: (error, action) => this.#unsaved(error, action),
    });
    globalThis.addEventListener?.("online", this.#online);
    globalThis.addEventListener?.("pageshow", this.#restored);
    this.load();
  }

  /** The rows that are not archived, the newest first. */
  get items() {
    return (this.#view ??= this.#rows.shown(this.#rows.rows).filter((row) => !row.archived));
  }

  /** The number of rows that have arrived while hold was set. */
  get waiting() {
    return this.#rows.shown(this.#rows.waiting).filter((row) => !row.archived).length;
  }

  get unseenCount() {
    return this.#rows.count("seen");
  }

  get unreadCount() {
    return this.#rows.count("read");
  }

  /** Reports whether loadMore would load more rows. */
  get hasMore() {
    return this.#rows.before !== null;
  }

  /** "loading", "failed", or a state of the stream. "retrying" and "forbidden" can also mean that a request for the list
   * has failed. "signed-out" can also mean that the hub has refused a request for the list or for a change. */
  get state() {
    return this.#state;
  }

  /** Why the list could not be loaded, or why the user is signed out. Undefined when the stream is open. */
  get error() {
    return this.#error;
  }

  /** The URL of the list. */
  get url() {
    return this.#client.url.href;
  }

  /** The stream, or undefined. After load, it is another one. */
  get source() {
    return this.#source;
  }

  /** Returns the time of the hub. */
  now() {
    return this.#client.now();
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
    const rows = this.#rows;
    if (!rows.waiting.length) return;
    rows.rows.unshift(...rows.waiting.splice(0));
    this.#follow();
    this.#changed();
  }

  /** Loads the list, and opens the stream at the list's cursor. So the stream begins with the first row that the list could not have. */
  async load() {
    const run = ++this.#run;
    clearTimeout(this.#timers.retry);
    this.#source?.close();
    if (this.#state !== "open" && this.#state !== "delayed") this.#become("loading");
    try {
      const list = await this.#client.list(this.#rows.user, Math.min(PAGE, Math.max(this.#options.limit ?? 20, this.#rows.all.length)));
      if (run !== this.#run) return;
      this.#replace(list);
    } catch (error) {
      if (run === this.#run) this.#failed(error);
    }
  }

  // Loads the list again, unless this object was closed or the user has signed out: an answer may come after that.
  #reload() {
    if (this.#source) this.load();
  }

  #replace(list) {
    this.#rows.replace(list);
    this.#paging = this.#error = undefined;
    this.#failures = this.#counted = 0;
    this.#open();
    this.#changed();
  }

  #failed(error) {
    this.#error = error;
    const { status } = error;
    if (status === 403) this.#become("forbidden");
    else if (status >= 400 && status < 500 && ![408, 409, 425, 429].includes(status)) this.#become("failed");
    else {
      const wait = Math.min(SECOND * 2 ** this.#failures++, BACKOFF) * (1 + Math.random());
      this.#timers.retry = setTimeout(() => this.load(), Math.min(Math.max(wait, (error.retryAfter ?? 0) * SECOND), LONGEST_WAIT));
      this.#become("retrying");
    }
  }

  /** Empties the list, because the user has signed out, or another user has signed in. load() shows the inbox of the present user. */
  #signOut(error) {
    if (this.#state === "closed") return;
    this.#run++;
    clearTimeout(this.#timers.retry);
    clearTimeout(this.#timers.recount);
    this.#source?.close();
    this.#source = this.#paging = undefined;
    this.#client.forget();
    this.#rows.clear();
    this.#operations.close();
    this.#error = error;
    this.#become("signed-out");
  }

  #unsaved(error, action) {
    this.dispatchEvent(Object.assign(new Event("error"), { error, action }));
    if (error.status === 409) this.#reload();
  }

  #online = () => {
    if (this.#state === "retrying" && this.#error) this.load();
  };

  // While the page was in the back/forward cache, another user may have signed in.
  #restored = ({ persisted }) => {
    if (persisted) this.#client.forget();
  };

  #open() {
    const { withCredentials, token } = this.#options;
    const source = new RowcastSource(this.#events, { lastEventId: this.#rows.cursor, withCredentials, token: token && ((why) => this.#client.token(why)) });
    this.#source = source;
    const on = (name, listener) => source.addEventListener(name, (event) => this.#source === source && listener(event));
    on("rowcast.state", ({ state, error }) => {
      if (state === "signed-out") this.#signOut(error);
      else if (state !== "connecting") this.#become(state);
    });
    on("rowcast.reset", () => this.load());
    on("rowcast.event", (event) => event.id !== undefined && this.#arrive(event));
    on("rowcast.inbox", ({ data }) => {
      if (!isChange(data)) return; // not from the inbox: an app can insert rows with any recipient
      this.#apply(data);
      this.dispatchEvent(new CustomEvent("inbox", { detail: data }));
    });
    on("rowcast.beat", () => this.#follow());
  }

  /** Closes the stream. The list receives no more changes. */
  close() {
    this.#run++;
    this.#rows.list = {};
    this.#source?.close();
    this.#source = undefined;
    this.#operations.close();
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    globalThis.removeEventListener?.("online", this.#online);
    globalThis.removeEventListener?.("pageshow", this.#restored);
    this.#become("closed");
  }

  // Moves the cursor of the list to what the stream has brought, unless rows wait. The source can have two cursors after a change of the tab
  // that has the stream. A request for "all" takes one, so the rows that only the second one covers keep their state.
  #follow() {
    if (!this.#rows.waiting.length) this.#rows.cursor = this.#source?.lastEventId.split(" ")[0] || this.#rows.cursor;
  }

  #arrive({ name, data, lastEventId, time }) {
    const [id] = /^\d+/.exec(lastEventId); // as text, because a large number would be rounded
    const rows = this.#rows;
    if (rows.find(id)) return;
    const tooLarge = name === "rowcast.toolarge";
    const row = rows.row({ id, recipient: undefined, event: name, data: tooLarge ? null : data, created_at: time ?? this.now(), seen: false, read: false, too_large: tooLarge }, 0);
    rows.add(row, this.#hold);
    this.#arrived = this.now();
    if (Math.min(this.#arrived, +row.time) - this.#counted < SETTLE) this.#recount(); // a stream that was interrupted brings rows late
    this.#follow();
    this.#changed();
    this.dispatchEvent(new CustomEvent("row", { detail: rows.shown([row])[0] }));
    if ((this.#hold ? rows.waiting : rows.all).length > LONGEST) this.#reload();
  }

  /** Applies a rowcast.inbox event. */
  #apply(event) {
    const { action, ids, version } = event;
    const rows = this.#rows;
    if (action === "reload") return version <= rows.list.version || this.load();
    if (action === "delete") {
      rows.remove(ids);
      this.#recount();
    } else {
      const covered = ids ?? rows.covered(event);
      if (!covered || (action === "unarchive" && !ids.every((id) => rows.find(id)))) return this.load();
      rows.set(new Set(covered), action, version);
      this.#setCounts(event);
    }
    this.#follow();
    this.#changed();
  }

  /** Takes the counts of an event or an answer. They may include rows that have not arrived yet, or miss rows that have. */
  #setCounts(counts) {
    if (!this.#rows.setCounts(counts)) return;
    this.#counted = this.now();
    if (this.#counted - this.#arrived < SETTLE) this.#recount();
  }

  /** Asks for the counts after a wait, when everything has probably arrived. If the answers stay old, the list is loaded again. */
  #recount(tries = 0) {
    clearTimeout(this.#timers.recount);
    if (!this.#source) return; // as in #reload
    this.#timers.recount = setTimeout(async () => {
      const [run, moves] = [this.#run, this.#moves];
      const list = await this.#client.list(this.#rows.user, 1).catch(() => undefined);
      if (run !== this.#run) return;
      if (!list) return this.#recount(tries + 1);
      if (moves !== this.#moves || this.#rows.ops.length) return this.#recount();
      if (list.version < this.#rows.counts.version || this.#rows.misses(list)) return tries < TRIES ? this.#recount(tries + 1) : this.load();
      this.#rows.counts = { version: list.version, unseen: list.unseen, unread: list.unread };
      this.#changed();
    }, Math.min(SETTLE * 2 ** tries, BACKOFF));
  }

  seen(ids) {
    return this.#operations.seen(ids);
  }

  read(ids) {
    return this.#operations.mark("read", ids);
  }

  unread(ids) {
    return this.#operations.mark("unread", ids);
  }

  archive(ids) {
    return this.#operations.mark("archive", ids);
  }

  unarchive(ids) {
    return this.#operations.mark("unarchive", ids);
  }

  /** Marks all rows as read that the list shows, or could show after loadMore. Rows that wait are not among them. */
  readAll() {
    return this.#operations.all("read");
  }

  archiveAll() {
    return this.#operations.all("archive");
  }

  undo(version = undefined) {
    return this.#operations.undo(version);
  }

  /** Loads the next page. */
  loadMore() {
    if (!this.hasMore) return Promise.resolve(true);
    return (this.#paging ??= this.#nextPage(this.#rows.list));
  }

  async #nextPage(list) {
    const rows = this.#rows;
    rows.deleted = new Set();
    try {
      for (let tries = 0; tries <= TRIES; tries++) {
        const page = await this.#client.list(rows.user, this.#options.limit ?? 20, rows.before);
        if (list !== rows.list) return false;
        if (!(page.version < rows.counts.version)) {
          rows.append(page);
          return true;
        }
        await new Promise((resolve) => setTimeout(resolve, (SECOND / 8) * 2 ** tries)); // changes have overtaken the page
        if (list !== rows.list) return false;
      }
      this.load();
      return false;
    } catch (error) {
      if (list === rows.list) this.dispatchEvent(Object.assign(new Event("error"), { error, action: "list" }));
      return false;
    } finally {
      if (list === rows.list) {
        this.#paging = undefined;
        rows.deleted = undefined;
        this.#changed();
      }
    }
  }

  #become(state) {
    if (state === "open") this.#error = undefined;
    this.#state = state;
    this.#changed();
  }

  /** Dispatches the event "change" in a microtask, once for all changes until then. */
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
