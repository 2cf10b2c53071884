// The arithmetic of the Go package listener/cursor, a database and a hub, for the simulation of tabs.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/** Returns the text of a cursor. A cursor has the fields xmax, xip (ascending), xid (0 means none), id and epoch. */
export function text(c) {
  let [list, above] = ["", c.xmax];
  for (const xid of [...c.xip].reverse()) {
    const digits = [];
    for (let gap = above - xid - 1; digits.length === 0 || gap > 0; gap = Math.floor(gap / 32)) digits.unshift(gap % 32);
    list += digits.map((d, i) => DIGITS[i < digits.length - 1 ? d | 32 : d]).join("");
    above = xid;
  }
  return `${c.id}-${c.xid}-${c.xmax}-${list && "~" + list}-${c.epoch.toString(16).padStart(8, "0")}-0000000a`;
}

export function parse(s) {
  const [id, xid, xmax, list, epoch] = s.split("-");
  const xip = [];
  let [above, gap] = [+xmax, 0];
  for (const c of list.slice(1)) {
    const digit = DIGITS.indexOf(c);
    gap = gap * 32 + (digit & 31);
    if (digit & 32) continue;
    xip.unshift(above -= gap + 1);
    gap = 0;
  }
  return { id: +id, xid: +xid, xmax: +xmax, xip, epoch: parseInt(epoch, 16) };
}

const seenAll = (c, xid) => xid < c.xmax && !(c.xid && xid === c.xid) && !c.xip.includes(xid);
export const seen = (c, row) => c.xid && row.xid === c.xid ? row.id <= c.id : seenAll(c, row.xid);

export function covers(c, other) {
  return c.xmax >= other.xmax && !c.xip.some((x) => seenAll(other, x)) && !(c.xid && seenAll(other, c.xid)) &&
    (!other.xid || seen(c, other));
}

export const compare = (c) => (a, b) => c.xid && a.xid !== b.xid && (a.xid === c.xid ? -1 : b.xid === c.xid ? 1 : 0) || a.xid - b.xid || a.id - b.id;

function finished(c) {
  return { ...c, xmax: c.xid && c.xid === c.xmax ? c.xmax + 1 : c.xmax, xid: 0, id: 0 };
}

/** Returns the cursor after a row of the batch between the cursors start and end. */
export function after(start, end, row) {
  if (start.xid && row.xid === start.xid) return { ...start, id: row.id, epoch: end.epoch };
  const c = finished(start);
  return { xmax: Math.max(c.xmax, row.xid), xip: [...end.xip.filter((x) => x < row.xid), ...c.xip.filter((x) => x > row.xid)], xid: row.xid, id: row.id, epoch: end.epoch };
}

/** Returns the cursor at the end of a batch, for a reader whose last row in it has the cursor c. */
export function reached(c, end) {
  c = finished(c);
  return { ...c, xip: end.xip.filter((x) => x < c.xmax), epoch: end.epoch };
}

/** A database in which transactions commit in any order. */
export class Database {
  next = { xid: 100, id: 1 };
  epoch = 1;
  horizon = 0; // rows of transactions with a lower number may have been deleted
  active = new Set();
  rows = []; // committed, with the fields xid, id, user

  begin() {
    const transaction = { xid: this.next.xid++, rows: [], needs: this.rows.length };
    this.active.add(transaction.xid);
    return transaction;
  }

  insert(transaction, user) {
    transaction.rows.push({ xid: transaction.xid, id: this.next.id++, user, needs: transaction.needs, epoch: this.epoch });
  }

  end(transaction, commit) {
    this.active.delete(transaction.xid);
    if (commit) this.rows.push(...transaction.rows);
  }

  snapshot() { return { xmax: this.next.xid, xip: [...this.active].sort((a, b) => a - b), xid: 0, id: 0, epoch: this.epoch }; }

  /** Returns rowcast.cursor(). */
  cursor() {
    const end = this.snapshot();
    const top = Math.max(2, ...this.rows.map((row) => row.xid));
    return { ...end, xmax: top + 1, xip: end.xip.filter((x) => x <= top) };
  }
}

/** A hub. Streams have send(events), where an event is { type, data, id } and id is undefined for a message. */
export class Hub {
  streams = new Set();
  constructor(database) {
    this.database = database;
    this.cursor = database.cursor();
    this.read = database.rows.length;
  }

  /** Reads a batch and sends it. */
  fetch() {
    const [start, end] = [this.cursor, this.database.snapshot()];
    const rows = this.database.rows.slice(this.read).sort(compare(start)); // all earlier rows have been read
    this.read = this.database.rows.length;
    let c = start;
    for (const row of rows) {
      c = after(start, end, row);
      const event = { type: "message", data: JSON.stringify(row), id: text(c) };
      for (const s of this.streams) if (wants(s, row.user)) s.send([event]);
    }
    this.cursor = reached(c, end);
  }

  /** Begins again after the database has lost transactions, and resets all streams. */
  reset(reason) {
    this.cursor = this.database.cursor();
    this.read = this.database.rows.length;
    this.valid = this.cursor.epoch; // cursors of earlier epochs are not valid
    for (const s of this.streams) s.send([{ type: "rowcast.reset", data: JSON.stringify({ reason }), id: text(this.cursor) }]);
  }

  beat() {
    for (const s of this.streams) s.send([{ type: "rowcast.beat", data: '{"behind":0}', id: text(this.cursor) }]);
  }

  note(user, data) {
    for (const s of this.streams) if (wants(s, user)) s.send([{ type: "message", data }]);
  }

  /** Opens a stream that continues from a cursor. */
  join(stream, from, heartbeat) {
    const hello = { type: "rowcast.hello", data: JSON.stringify({ recipients: [stream.user], heartbeat }) };
    let c = from ? parse(from) : this.cursor;
    if (c.epoch !== this.database.epoch || this.cursor.epoch !== c.epoch || !covers(this.cursor, c)) this.fetch();
    const lost = c.epoch < this.valid;
    c = { ...c, epoch: this.cursor.epoch };
    const first = Math.min(c.xmax, ...c.xip, c.xid || Infinity);
    if (lost || first < this.database.horizon || !covers(this.cursor, c)) {
      c = this.cursor;
      stream.send([hello, { type: "rowcast.reset", data: '{"reason":"expired"}', id: text(c) }]);
    } else {
      stream.send([{ ...hello, id: text(c) }]);
    }
    const rows = this.database.rows.filter((row) => wants(stream, row.user) && seen(this.cursor, row) && !seen(c, row)).sort(compare(c));
    stream.send(rows.map((row) => ({ type: "message", data: JSON.stringify(row), id: text(after(c, this.cursor, row)) })));
    this.streams.add(stream);
  }
}

const wants = (stream, user) => user === "*" || user === stream.user;
