// What a cursor has seen: the part of the Go package listener/cursor that tabs need to compare cursors.

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

/** Reports whether a reader at a cursor has seen a row. The cursor of a row names the row. Both are results of read. */
export const seen = (c, row) => c && row && (c.xid && row.xid === c.xid ? row.id <= c.id : seenAll(c, row.xid));

/** Reports whether a reader at cursor a has seen all that a reader at cursor b has seen. Both are texts. If one has an unknown form, only
 * equal texts cover each other. */
export function covers(a, b) {
  if (a === b) return true;
  const [x, y] = [read(a), read(b)];
  return !!x && !!y && x.epoch === y.epoch && x.xmax >= y.xmax && ![...x.flying].some((xid) => seenAll(y, xid)) &&
    !(x.xid && seenAll(y, x.xid)) && (!y.xid || seen(x, y));
}
