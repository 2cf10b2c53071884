// A fake hub with an inbox for the tests. A test decides when each request is answered and when each stream receives an entry.
import { RowcastInbox } from "../rowcast-inbox-store.js";
import { settle } from "./hub.mjs";

const EFFECTS = { seen: { seen: true }, read: { seen: true, read: true }, unread: { read: false }, archive: { archived: true }, unarchive: { archived: false } };

/** An InboxServer has the inbox of one user. Its log has the rows and the changes in their order. A cursor contains a length of the log. */
export class InboxServer {
  log = [];
  rows = []; // the oldest first
  version = 0;
  user = "alice"; // the user of the credential
  undos = new Map();
  requests = []; // without an answer
  streams = [];

  constructor(t) {
    this.t = t;
    t.mock.timers.enable({ apis: ["setTimeout", "Date"], now: 1_800_000_000_000 });
    t.mock.method(globalThis, "fetch", (url, init) => this.#fetch(new URL(url), init));
  }

  open(options, Inbox = RowcastInbox) {
    const store = new Inbox({ events: "http://hub.example/events?uid=alice", ...options });
    store.errors = [];
    store.arrived = [];
    store.addEventListener("error", ({ action, error }) => store.errors.push([action, error.status]));
    store.addEventListener("row", ({ detail }) => store.arrived.push(detail.id));
    this.t.after(() => store.close());
    return store;
  }

  insert(data = {}) {
    const row = { id: String(this.rows.length + 1), recipient: "alice", event: "notify", data, created_at: new Date().toISOString(), seen: false, read: false, archived: false };
    this.rows.push(row);
    this.log.push({ row });
    return row.id;
  }

  get cursor() {
    return `${this.rows.length}-0-${this.log.length}`;
  }

  counts() {
    const count = (field) => Math.min(this.visible().filter((row) => !row[field]).length, 100);
    return { version: this.version, unseen: count("seen"), unread: count("read"), more: false };
  }

  visible() {
    return this.rows.filter((row) => row && !row.archived && !row.deleted).reverse();
  }

  list(limit, before = Infinity) {
    const rows = this.visible().filter(({ id }) => +id < +before);
    const items = rows.slice(0, limit).map((row) => ({ ...row }));
    return { user: this.user, items, before: rows.length > limit ? items.at(-1).id : null, cursor: this.cursor, ...this.counts() };
  }

  mark(action, ids, all) {
    const seen = all === undefined ? undefined : new Set(this.log.slice(0, +all.split("-")[2]).flatMap(({ row }) => row?.id ?? []));
    const changed = this.rows.filter((row) => !row.deleted && (seen ? seen.has(row.id) : ids.includes(row.id)) && Object.entries(EFFECTS[action]).some(([key, value]) => row[key] !== value));
    const before = changed.map((row) => [row, { read: row.read, archived: row.archived }]);
    for (const row of changed) Object.assign(row, EFFECTS[action]);
    if (!changed.length) return { ...this.counts(), undo: null };
    this.version++;
    for (const row of changed) row.changed = this.version;
    if (action === "read" || action === "archive") this.undos.set(String(this.version), { before, all: !!seen, action, version: this.version });
    this.log.push({ change: { action, ...(seen ? { up_to: all } : { ids }), ...this.counts() } });
    return { ...this.counts(), undo: action === "read" || action === "archive" ? String(this.version) : null };
  }

  /** Inserts a row that commits during a change: the row precedes the change in the log, but the counts of the change do not contain it. */
  insertDuring(action, ids) {
    const { length } = this.log;
    this.mark(action, ids);
    this.insert();
    this.log.push(...this.log.splice(length).reverse());
    this.log[length].together = this.log.length > length + 1;
  }

  undo(value) {
    const { before, all, action, version } = this.undos.get(value) ?? { before: [] };
    const isNewest = !all || ![...this.undos.values()].some((other) => other.all && other.action === action && other.version > version);
    const rows = isNewest ? before.filter(([row]) => row.changed === version) : [];
    if (!rows.length) return { ...this.counts(), undone: false };
    this.undos.delete(value);
    this.version++;
    for (const [row, old] of rows) Object.assign(row, old, { changed: this.version });
    this.log.push({ change: all ? { action: "reload", ...this.counts() } : { action: action === "read" ? "unread" : "unarchive", ids: rows.map(([row]) => row.id), ...this.counts() } });
    return { ...this.counts(), undone: true };
  }

  delete(id) {
    this.rows[id - 1].deleted = true;
    this.log.push({ change: { action: "delete", ids: [id] } });
  }

  #fetch(url, { method, body, headers, signal }) {
    return new Promise((resolve, reject) => {
      if (url.pathname === "/events") return resolve(this.#stream(headers["Last-Event-ID"], signal));
      this.requests.push({ url, method, values: body && JSON.parse(body), headers, resolve, reject });
    });
  }

  #stream(cursor, signal) {
    const stream = { at: +cursor.split("-")[2], signal };
    stream.body = new ReadableStream({ start: (controller) => (stream.controller = controller) });
    signal.addEventListener("abort", () => (this.streams = this.streams.filter((other) => other !== stream)));
    stream.send = (text) => stream.controller.enqueue(new TextEncoder().encode(text));
    stream.send(`event: rowcast.hello\ndata: {"recipients":["${this.user}"],"heartbeat":15}\nid: ${cursor}\n\n`);
    this.streams.push(stream);
    return new Response(stream.body, { headers: { "Content-Type": "text/event-stream" } });
  }

  /** Sends the next entry of the log to a stream. */
  deliver(stream) {
    const entry = this.log[stream.at++];
    if (!entry) return stream.at--, false;
    const { row, change, together } = entry;
    const [event, data, id, time] = row ? [row.event, row.data, row.id, Date.parse(row.created_at)] : ["rowcast.inbox", change, 0];
    stream.send(`event: ${event}\ndata: ${JSON.stringify(data)}\n${row ? `time: ${time}\n` : ""}id: ${id}-0-${stream.at}\n\n`);
    return together ? this.deliver(stream) : true;
  }

  /** Does what the oldest request, or the request i, asks for. The result is sent by answer. */
  process(i = 0) {
    const request = this.requests[i];
    const { url, method, values } = request;
    const action = url.pathname.split("/")[2];
    if ((url.searchParams.get("user") ?? this.user) !== this.user) request.refused = 412;
    else if (method === "GET") request.result = this.list(+url.searchParams.get("limit"), url.searchParams.get("before") ?? undefined);
    else if (action === "undo") request.result = this.undo(values.undo);
    else request.result = this.mark(action, values.ids, values.all);
    return request;
  }

  async answer(i = 0, status = 200) {
    const request = this.requests[i];
    if (status === 200 && !request.result) status = this.process(i).refused ?? status;
    this.requests.splice(i, 1);
    if (status === 0) request.reject(new TypeError("network error"));
    else request.resolve(new Response(status === 200 ? JSON.stringify(request.result) : "failed", { status, headers: { "Content-Type": "application/json" } }));
    await settle();
    return request;
  }

  /** Delivers and answers everything, and lets time pass until nothing more happens. */
  async drain() {
    for (let quiet = 0; quiet < 3; ) {
      await settle();
      let busy = false;
      while (this.requests.length) {
        busy = true;
        await this.answer();
      }
      for (const stream of this.streams) while (this.deliver(stream)) busy = true;
      await settle();
      this.t.mock.timers.tick(2_100);
      quiet = busy ? 0 : quiet + 1;
    }
  }
}

/** Describes the list of a store. */
export const shown = (store) => store.items.map(({ id, seen, read }) => id + (read ? "r" : seen ? "s" : ""));
