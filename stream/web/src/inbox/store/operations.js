// The changes that a page makes. They are shown at once, and sent one after the other. read and archive can be undone. An undo does not
// wait for later changes.

const SECOND = 1_000;

/** Operations sends the changes of a store. */
export class Operations {
  #rows;
  #client;
  #store;
  #sending = Promise.resolve();
  #seeing; // the operation that collects seen rows
  #sawAt = 0;
  #timer;

  /** @param {import("./rows.js").Rows} rows @param {import("./client.js").Client} client
   * @param {{changed: () => void, load: () => void, counts: (answer: any) => void, failed: (error: any, action: string) => void}} store */
  constructor(rows, client, store) {
    this.#rows = rows;
    this.#client = client;
    this.#store = store;
  }

  /** Drops the marks as seen that have not been sent. */
  close() {
    clearTimeout(this.#timer);
    this.#seeing?.drop();
    this.#seeing = undefined;
  }

  /** Marks rows as seen. All rows of a second are sent together. */
  seen(ids) {
    const fresh = this.#rows.changing("seen", ids);
    if (!fresh.length) return Promise.resolve(true);
    if (!this.#seeing) {
      const op = (this.#seeing = { action: "seen", ids: new Set(), user: this.#rows.user });
      this.#rows.ops.push(op);
      op.saved = new Promise((resolve) => {
        op.drop = () => resolve(false);
        this.#timer = setTimeout(() => {
          this.#seeing = undefined;
          this.#sawAt = Date.now();
          resolve(this.#send(op));
        }, Math.min(this.#sawAt + SECOND - Date.now(), SECOND)); // a second at most, because the clock may be set back
      });
    }
    for (const id of fresh) this.#seeing.ids.add(id);
    this.#store.changed();
    return this.#seeing.saved;
  }

  mark(action, ids) {
    const fresh = this.#rows.changing(action, ids);
    return fresh.length ? this.#begin({ action, ids: new Set(fresh) }) : Promise.resolve(true);
  }

  all(action) {
    return this.#begin({ action, ids: new Set(this.#rows.rows.map(({ id }) => id)), all: this.#rows.cursor });
  }

  #begin(op) {
    op.user = this.#rows.user;
    this.#rows.ops.push(op);
    this.#store.changed();
    return (op.saved = this.#send(op));
  }

  /** Sends an operation after the operations before it. The result is false if it failed. */
  #send(op) {
    const sent = this.#sending.then(async () => {
      try {
        const answer = await this.#client.change(op.action, op.all === undefined ? { ids: [...op.ids] } : { all: op.all }, op.user);
        this.#finish(op, answer);
        return true;
      } catch (error) {
        this.#finish(op);
        this.#store.failed(error, op.action);
        return false;
      }
    });
    this.#sending = sent.then(() => {});
    return sent;
  }

  #finish(op, answer = undefined) {
    this.#rows.finish(op, answer);
    if (answer && op.user === this.#rows.user) {
      this.#store.counts(answer);
      if (op.all !== undefined && op.extended && answer.version > this.#rows.list.version) this.#store.load();
    }
    this.#store.changed();
  }

  #last() {
    return [...this.#rows.done, ...this.#rows.ops].findLast(({ action, undone }) => !undone && (action === "read" || action === "archive"));
  }

  /** Returns the operation of a version. If another device has made the change, its rows are not known here. The list then changes when the
   * stream brings the event of the undo. */
  #find(undo) {
    return this.#rows.done.find((op) => op.undo === undo) ?? { action: "archive", ids: new Set(), undo, user: this.#rows.user, saved: true };
  }

  /** Undoes the last read, archive, readAll or archiveAll of this page, or the change with the version, which another device may have made.
   * The result is false if nothing was undone. */
  async undo(version = undefined) {
    const rows = this.#rows;
    const op = version === undefined ? this.#last() : this.#find(String(version));
    if (!op || op.undone || !(await op.saved) || !op.undo) return false;
    op.undone = true;
    const overlay = { action: op.action === "read" ? "unread" : "unarchive", ids: op.ids };
    if (op.all === undefined) rows.ops.push(overlay);
    this.#store.changed();
    try {
      const answer = await this.#client.change("undo", { undo: op.undo }, op.user);
      if (version !== undefined) op.undone = answer.undone; // after a newer change is undone, this one may be possible
      if (op.user !== rows.user) return answer.undone;
      const field = op.action === "read" ? "read" : "archived";
      const same = [...op.ids].filter((id) => rows.find(id)?.versions[field] === op.version); // the hub skips rows that have changed since
      if (answer.undone && op.all === undefined) rows.set(new Set(same), overlay.action, answer.version);
      if (answer.undone && op.all !== undefined && answer.version > rows.list.version) this.#store.load();
      this.#store.counts(answer);
      return answer.undone;
    } catch (error) {
      op.undone = false;
      this.#store.failed(error, "undo");
      return false;
    } finally {
      rows.ops = rows.ops.filter((other) => other !== overlay);
      this.#store.changed();
    }
  }
}
