// The rows with their state, and the rules by which answers, events and operations change them.

import { MANY } from "../many.js";

const DONE = 20; // the number of operations with an answer that are kept, because their events may still arrive

/** What each action changes. */
const EFFECTS = {
  seen: { seen: true },
  read: { seen: true, read: true },
  unread: { read: false },
  archive: { archived: true },
  unarchive: { archived: false },
};

/** Reports whether the data of an event describes a change of the inbox. */
export function isChange(data) {
  const { action, ids, up_to, version, unseen, unread } = Object(data);
  const hasIds = Array.isArray(ids) && ids.every((id) => typeof id === "string");
  if (action === "delete") return hasIds;
  if (action === "reload") return version === undefined || Number.isSafeInteger(version);
  const isKnown = typeof action === "string" && Object.hasOwn(EFFECTS, action) && [version, unseen, unread].every(Number.isSafeInteger);
  return isKnown && (hasIds || (typeof up_to === "string" && !action.startsWith("un")));
}

/** Reports whether an action of a version has no effect on a row, because the change or a newer one is known. */
const isOld = (row, action, version) => Object.keys(EFFECTS[action]).every((field) => row.versions[field] >= version);
const changes = (row, action) => Object.entries(EFFECTS[action]).some(([field, value]) => row[field] !== value);

/** The newest rows of a user, with their state. Each field of a state has a version: an event or answer that is not newer does not change
 * the field. Operations that the hub has not answered do not change the rows. They are applied to a copy when the rows are shown, so an
 * operation that fails leaves no trace. */
export class Rows {
  list = /** @type {any} */ ({}); // the last answer with the first page
  user; // the user of the list
  rows = /** @type {any[]} */ ([]); // the newest first
  waiting = /** @type {any[]} */ ([]); // rows that wait until they may move the list
  before = null; // the value that selects the next page, or null after the last page
  cursor; // the cursor of what the list shows
  counts = { version: 0, unseen: 0, unread: 0 };
  ops = /** @type {any[]} */ ([]); // operations without an answer, in their order
  done = /** @type {any[]} */ ([]); // the last operations with an answer
  /** The ids of the rows that were deleted while the next page is requested: the page may still have them. Otherwise undefined.
   * @type {Set<string> | undefined} */
  deleted;

  get all() {
    return [...this.rows, ...this.waiting];
  }

  /** Replaces the rows by the first page of a list. */
  replace(list) {
    this.list = list;
    this.user = list.user;
    this.#extend();
    this.rows = list.items.map((item) => this.row(item, list.version));
    this.waiting = [];
    this.deleted = undefined;
    this.counts = { version: list.version, unseen: list.unseen, unread: list.unread };
    this.before = list.before;
    this.cursor = list.cursor;
  }

  /** Removes the rows and the counts, because their user has signed out. */
  clear() {
    this.list = {};
    this.user = this.cursor = undefined;
    [this.rows, this.waiting, this.ops, this.done, this.before] = [[], [], [], [], null];
    this.counts = { version: 0, unseen: 0, unread: 0 };
    this.deleted = undefined;
  }

  /** Adds the next page. */
  append(page) {
    this.rows.push(...page.items.filter(({ id }) => !this.find(id) && !this.deleted.has(id)).map((item) => this.row(item, page.version)));
    this.before = page.before;
    this.#extend();
  }

  /** Records that rows were added after the pending operations began. An operation on all rows may also change these rows. */
  #extend() {
    for (const op of this.ops) op.extended = true;
  }

  row({ id, recipient, event, data, created_at, seen, read, too_large = false }, version) {
    return { id, recipient, event, data, time: new Date(created_at), seen, read, archived: false, too_large, versions: { seen: version, read: version, archived: version } };
  }

  find(id) {
    return this.rows.find((row) => row.id === id) ?? this.waiting.find((row) => row.id === id);
  }

  /** Reports whether a list, and thus its counts, has a row that has not arrived here. */
  misses({ items: [newest] }) {
    return newest !== undefined && this.all.every(({ id }) => BigInt(id) < BigInt(newest.id));
  }

  /** Adds a row that has just arrived. */
  add(row, waits) {
    (waits ? this.waiting : this.rows).unshift(row);
    const { unseen, unread, version } = this.counts;
    this.counts = { version, unseen: Math.min(unseen + 1, MANY), unread: Math.min(unread + 1, MANY) };
  }

  remove(ids) {
    for (const id of ids) this.deleted?.add(id);
    const gone = new Set(ids);
    const stays = ({ id }) => !gone.has(id);
    this.rows = this.rows.filter(stays);
    this.waiting = this.waiting.filter(stays);
  }

  set(ids, action, version) {
    for (const row of this.all) {
      if (!ids.has(row.id)) continue;
      for (const [field, value] of Object.entries(EFFECTS[action])) {
        if (version > row.versions[field]) [row[field], row.versions[field]] = [value, version];
      }
    }
  }

  /** Replaces the counts if the given counts are newer, and reports whether they are. */
  setCounts({ version, unseen, unread }) {
    const isNewer = version > this.counts.version;
    if (isNewer) this.counts = { version, unseen, unread };
    return isNewer;
  }

  /** Returns the ids of the rows of the list that the cursor up_to contains. Cursors cannot be compared here, so the result is undefined
   * unless up_to is the cursor of the list, or of an operation of this page. The result is empty if newer changes of all rows are known. */
  covered({ action, up_to, version }) {
    if (this.all.every((row) => isOld(row, action, version))) return [];
    const op = [...this.ops, ...this.done].find((op) => op.action === action && op.all === up_to && !op.extended && (op.version ?? version) === version);
    return op?.ids ?? (up_to === this.cursor ? this.rows.map(({ id }) => id) : undefined);
  }

  /** Returns rows as they will be after the operations that have no answer yet. */
  shown(rows) {
    return rows.map((row) => {
      const { versions, ...shown } = row;
      for (const { ids, action } of this.ops) if (ids.has(row.id)) Object.assign(shown, EFFECTS[action]);
      return shown;
    });
  }

  /** Returns the number of rows that are not archived and not seen (field "seen") or not read (field "read"), at most MANY. If all rows are
   * loaded, or an operation on all rows that affects the field has no answer yet, it counts the loaded rows. Otherwise it returns the hub's
   * count: MANY as it is, and a smaller count corrected by the operations that have no answer yet, but not less than the number of such
   * rows that are loaded. */
  count(field) {
    const count = (rows) => rows.filter((row) => !row.archived && !row[field]).length;
    const shown = count(this.shown(this.all));
    const number = this.counts[field === "seen" ? "unseen" : "unread"];
    if (this.before === null || this.ops.some(({ all, action }) => all && (action !== "seen" || field === "seen"))) return Math.min(shown, MANY);
    return number >= MANY ? MANY : Math.min(Math.max(number + shown - count(this.all), shown), MANY);
  }

  /** Returns the ids of rows that an action would change, and the ids that are not in the list. */
  changing(action, ids) {
    const shown = new Map(this.shown(this.all).map((row) => [row.id, row]));
    return [...ids].filter((id) => !shown.has(id) || changes(shown.get(id), action));
  }

  /** Ends an operation. Without an answer it has failed. */
  finish(op, answer) {
    this.ops = this.ops.filter((other) => other !== op);
    if (!answer || op.user !== this.user) return;
    this.set(op.ids, op.action, answer.version);
    this.done = [...this.done, Object.assign(op, { undo: answer.undo, version: answer.version })].slice(-DONE);
  }
}
