// The part of the Go package listener/cursor that tabs need to compare cursors.

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/** Reads the text of a cursor (listener/cursor/text.go). The result is undefined if the text has an unknown form. */
export function read(text) {
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

/** Reports whether cursor c has seen a row. The argument row is the cursor of the row's event, which has the id of the row and the number
 * of its transaction. Both arguments are results of read. */
export const seen = (c, row) => c && row && (c.xid && row.xid === c.xid ? row.id <= c.id : seenAll(c, row.xid));

/** Reports whether cursor a has seen everything that cursor b has seen. Both are texts. The result is false if they are of two epochs
 * of the database, or if one has an unknown form, unless the texts are equal. */
export function covers(a, b) {
  if (a === b) return true;
  const [x, y] = [read(a), read(b)];
  return !!x && !!y && x.epoch === y.epoch && x.xmax >= y.xmax && ![...x.flying].some((xid) => seenAll(y, xid)) &&
    !(x.xid && seenAll(y, x.xid)) && (!y.xid || seen(x, y));
}
