// The messages between the tabs of a browser. tabs.js says what a frame and the leader are.

/** @import { Frame, FrameEvent } from "../rowcast.d.ts" */
/** @typedef {FrameEvent & { note?: boolean }} Item an event; note is true for a NOTIFY message, which has no id of its own */

const RECENT = 5e5; // the greatest length of the recent frames together, in characters
const PART = 1e6; // the greatest length of a frame with several events, in characters
const TWIN = 15_000; // the time in milliseconds within which two streams may bring the same NOTIFY message, because a blocked leader is late

/** Matches the names of events that only the tab with the stream receives. */
export const CONTROL = /^rowcast\.(void|hello|beat|bye)$/;

/** Returns a hash of a text, for the names of locks and channels.
 * @param {string} text */
export function hash(text) {
  let h = 0n;
  for (const c of text) h = ((h ^ BigInt(c.codePointAt(0))) * 0x100000001b3n + 1n) % (1n << 89n);
  return h.toString(36);
}

/** Returns the approximate length of events in characters.
 * @param {Item[]} events */
export const size = (events) => events.reduce((sum, { data }) => sum + data.length + 200, 200);

const isFrame = (f) => typeof f?.prev === "string" && typeof f.cursor === "string" && Array.isArray(f.events) &&
  f.events.every((e) => [e?.type, e?.data, e?.lastEventId].every((text) => typeof text === "string"));

// Another script of the page's origin may send anything. The numbers are bounded, because a leader adds 1 to them. The
// heartbeat is bounded, because it is used for timers.
const isNumber = (n) => Number.isFinite(n) && n >= 0 && n < 2 ** 52;
const isHeartbeat = (ms) => ms === undefined || (isNumber(ms) && ms > 0 && ms < 2 ** 29);

export const isValid = (m) => isNumber(m?.epoch) && isNumber(m.n) && isHeartbeat(m.heartbeat) && typeof m.at === "string" && typeof m.status?.state === "string" &&
  (m.t === "state" || m.t === "frame" && isFrame(m) || m.t === "answer" && Array.isArray(m.frames) && m.frames.every(isFrame));

/** The last frames of a stream, without NOTIFY messages and without the events that only the tab with the stream receives. A tab that has
 * missed frames gets them from here, and needs no stream. */
export class Recent {
  #frames = [];
  #size = 0;

  /** @param {{ prev: string, cursor: string, events: Item[] }} frame */
  add({ prev, cursor, events }) {
    const rows = events.filter(({ type, note }) => !note && !CONTROL.test(type));
    const last = this.#frames.at(-1);
    if (!rows.length && last?.cursor === prev) last.cursor = cursor;
    else this.#size += size(this.#frames[this.#frames.push({ prev, cursor, events: rows }) - 1].events);
    while (this.#size > RECENT) this.#size -= size(this.#frames.shift().events);
  }

  /** Returns the newest frames, beginning with the last one whose prev is known. */
  after(known) {
    const first = this.#frames.findLastIndex(({ prev }) => known(prev));
    return first < 0 ? [] : this.#frames.slice(first);
  }
}

/** Divides a long frame into several ones, without the events that only the tab with the stream receives.
 * @param {{ prev: string, cursor: string, events: Item[] }} frame */
export function parts({ prev, cursor, events }) {
  const all = [];
  let [part, sum] = [[], 0];
  for (const event of events) {
    if (CONTROL.test(event.type)) continue;
    const length = size([event]);
    if (part.length && sum + length > PART) {
      const end = part.at(-1).lastEventId;
      all.push({ prev, cursor: end, events: part });
      [part, sum, prev] = [[], 0, end];
    }
    part.push(event);
    sum += length;
  }
  return [...all, { prev, cursor, events: part }];
}

/** The last NOTIFY messages, which have no id. When the leader changes, two streams may bring the same message. */
export class Notes {
  #last = /** @type {{ key: string, at: number, from: number[] }[]} */ ([]);

  /** Adds a message of a stream. Returns false if another stream has brought it.
   * @param {Item} message @param {number} stream the number of the leader, or 0 for the tab's own stream @param {number} now */
  add({ type, data }, stream, now) {
    const key = JSON.stringify([type, data]);
    this.#last = this.#last.filter(({ at }) => now - at < TWIN).slice(-99);
    const twin = this.#last.find((note) => note.key === key && !note.from.includes(stream));
    if (twin) twin.from.push(stream);
    else this.#last.push({ key, at: now, from: [stream] });
    return !twin;
  }
}
