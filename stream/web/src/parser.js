// A parser for the wire format, Server-Sent Events.

/** @import { FrameEvent } from "../rowcast.d.ts" */

const LONGEST_EVENT = 2 ** 27; // an event with more characters ends the stream
/** Matches the names of the hub's own events, except those that take the place of a row. */
export const CONTROL = /^rowcast\.(?!toolarge$|unreadable$)/;

/** Parses a text as JSON. Returns the text itself if it is not JSON.
 * @param {string} text @returns {any} */
export function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** A Parser decodes one stream. It drops an event that the end of the stream cuts off. */
export class Parser {
  retry;
  #decoder = new TextDecoder(); // removes a byte order mark
  #line = ""; // the beginning of a line that is not complete yet
  #afterCR = false;
  #block = /** @type {Record<string, string>} */ ({});

  constructor(cursor) {
    this.cursor = cursor;
  }

  /** Returns the events that end in a chunk.
   * @param {Uint8Array} bytes */
  push(bytes) {
    const events = /** @type {FrameEvent[]} */ ([]);
    let text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return events;
    if (this.#afterCR && text[0] === "\n") text = text.slice(1);
    this.#afterCR = text.endsWith("\r");
    // Only the new text is searched for line ends, and appending to a long string takes constant time. So the time is linear.
    const lines = text.split(/\r\n?|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = lines.pop();
    for (const line of lines) {
      if (line) this.#field(line);
      else this.#end(events);
    }
    if (this.#line.length + (this.#block.data?.length ?? 0) > LONGEST_EVENT) throw new RangeError("the event is too long");
    return events;
  }

  #field(line) {
    const [, name, value] = /^([^:]*):? ?([^]*)/.exec(line);
    const block = this.#block;
    if (name === "data" && "data" in block) block.data += "\n" + value;
    else if (/^(data|event)$/.test(name) || (name === "id" && !value.includes("\0")) || (name === "time" && /^\d+$/.test(value))) block[name] = value;
    else if (name === "retry" && /^\d+$/.test(value)) this.retry = +value;
  }

  #end(events) {
    const { event, data, id, time } = this.#block;
    this.#block = {};
    const lastEventId = (this.cursor = id ?? this.cursor);
    if (data === undefined) return;
    const type = event || "message";
    events.push({ type, data, lastEventId, id: id && !CONTROL.test(type) ? parseInt(id) : undefined, time: time && +time });
  }
}
