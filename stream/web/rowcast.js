/**
 * The browser's half of rowcast: an EventSource that does not give up.
 *
 *     import { subscribe } from "/rowcast.js";
 *     const stream = subscribe("/events", { withCredentials: true });
 *     stream.on("notify", (data) => show(data.msg));
 *
 * A plain EventSource works too, and reconnects and resumes by itself. What it does not do, and this does:
 *   - any answer but 200, such as a proxy's 502 while the hub restarts, ends an EventSource for good: a new one is opened;
 *   - a connection that died without a word (a laptop that slept) looks like a quiet one: the heartbeat is watched;
 *   - a stream whose token is about to expire is opened anew with the next one (onBye);
 *   - data is parsed; what became of the stream is told.
 * Every reopened stream goes on from the last event heard, so nothing is lost and nothing is heard twice.
 */

const HEARTBEAT = 15_000; // milliseconds, until the hub has told its own
const SILENCE = 2.5; // heartbeats without a word mean that the connection is dead
const RETRYING = 10; // likewise while the EventSource waits by itself, perhaps as long as a full hub has asked it to (retry:)
const [FIRST_WAIT, LONGEST_WAIT] = [1_000, 60_000]; // milliseconds, before a stream that was refused is opened again

/**
 * @typedef {"connecting" | "open" | "closed"} State connecting: at first, and whenever there is no connection;
 *   open: the hub has said hello; closed: by close() and nothing else.
 *
 * @callback Listener
 * @param {any} data the row's data, parsed
 * @param {MessageEvent} event with lastEventId: parseInt of it is the row's id. A message by hand (NOTIFY) has no id of its
 *   own and carries that of the event before.
 *
 * @typedef {object} Options
 * @property {boolean} [withCredentials] send cookies to another origin, too
 * @property {string} [lastEventId] resume from here: what rowcast.cursor() told the page, or an earlier stream's lastEventId
 * @property {string[]} [events] the event names that onEvent hears; default ["message"]. An EventSource hears no name that it
 *   is not told.
 * @property {(name: string, data: any, event: MessageEvent) => void} [onEvent]
 * @property {(reason: string, expiresIn: number) => any} [onBye] what lets this page listen ends in expiresIn seconds ("expired"), or
 *   has ended: the app no longer says so ("revoked"), the user was "disconnected", or the stream was answered with an error
 *   ("closed"), perhaps because it expired while the laptop slept. Renew it here, such as by a fetch that sets a new cookie: once
 *   the promise that this returns is fulfilled, the stream is opened anew.
 * @property {(reason: string) => void} [onReset] the stream could not resume and goes on from now: reload the page's state
 * @property {(state: State) => void} [onState] told after each change
 *
 * @typedef {object} Stream
 * @property {(name: string, listener: Listener) => () => void} on hears events of that name; returns what undoes it
 * @property {() => void} close ends the stream; it cannot be opened again
 * @property {State} state
 * @property {string} lastEventId where another stream would resume; "" before the first hello
 */

/** Opens a stream and keeps it open until close().
 * @param {string | URL} url such as "/events"; relative to the page
 * @param {Options} [options]
 * @returns {Stream} */
export function subscribe(url, options = {}) {
  const { withCredentials = false, events = ["message"], onEvent, onBye, onReset, onState } = options;
  const listeners = /** @type {Map<string, Set<Listener>>} */ (new Map());
  let source = /** @type {EventSource} */ (null);
  let state = /** @type {State} */ ("closed");
  let cursor = options.lastEventId ?? "";
  let heartbeat = HEARTBEAT;
  let patience = 1; // times SILENCE
  let refused = 0; // times in a row
  let timer; // what is going to be done to this stream unless it is heard of first

  function open() {
    const address = new URL(url, globalThis.document?.baseURI ?? globalThis.location.href);
    // When the EventSource reconnects by itself it sends a header with a newer cursor, and the hub lets that win.
    if (cursor) address.searchParams.set("last_event_id", cursor);
    source?.close();
    source = new EventSource(address, { withCredentials });
    source.onerror = failed;
    for (const name of listeners.keys()) source.addEventListener(name, receive);
    schedule(starve, SILENCE * patience * heartbeat);
    change("connecting");
  }

  function receive(event) {
    if (event.currentTarget !== source) return;
    if (event.lastEventId) cursor = event.lastEventId;
    const data = JSON.parse(event.data);
    const hello = event.type === "rowcast.hello";
    if (hello && data.heartbeat > 0) heartbeat = data.heartbeat * 1000;
    if (hello) refused = 0;
    else patience = 1;
    schedule(starve, SILENCE * patience * heartbeat);
    // Not at the EventSource's "open": a proxy that answers for an absent hub opens streams, too.
    if (hello) change("open");
    for (const listener of [...listeners.get(event.type)]) {
      try {
        listener(data, event);
      } catch (error) {
        reportError(error); // as the browser does with its own listeners: the next one is called all the same
      }
    }
  }

  function failed() {
    if (source.readyState !== EventSource.CLOSED) {
      schedule(starve, RETRYING * heartbeat);
    } else {
      // The status cannot be seen from here: it may be for ever (401), so it is asked less and less often. The jitter is for
      // the hub, to which all its clients come back.
      const wait = Math.min(FIRST_WAIT * 2 ** refused++, LONGEST_WAIT);
      schedule(onBye ? reopen : open, wait * (0.5 + Math.random() / 2));
    }
    change("connecting");
  }

  // A page that cannot renew what it has just now is refused, and asked again.
  async function reopen() {
    const ended = source;
    await said("closed", 0);
    if (source === ended && state !== "closed") open();
  }

  async function bye(reason, expiresIn) {
    const ending = source;
    if (await said(reason, expiresIn) && source === ending && state !== "closed") open();
  }

  /** Tells the page, and whether it has renewed what it has. */
  async function said(reason, expiresIn) {
    try {
      const renewed = onBye(reason, expiresIn);
      if (typeof renewed?.then !== "function") return false;
      await renewed;
      return true;
    } catch (error) {
      reportError(error);
      return false;
    }
  }

  function starve() {
    // A large event on a slow line is silence as well, and would never arrive if it were given the same time at each try.
    patience = Math.min(patience * 2, 16);
    open();
  }

  function schedule(what, wait) {
    clearTimeout(timer);
    timer = setTimeout(what, wait);
  }

  // After what is scheduled, as the page may close the stream when it is told.
  function change(next) {
    if (state === next) return;
    state = next;
    onState?.(state);
  }

  function on(name, listener) {
    if (!listeners.has(name)) {
      listeners.set(name, new Set());
      source?.addEventListener(name, receive);
    }
    listeners.get(name).add(listener);
    return () => void listeners.get(name).delete(listener);
  }

  function close() {
    clearTimeout(timer);
    source.close();
    change("closed");
  }

  // Heard whether or not the page wants them: they move the cursor and show that the connection lives.
  for (const name of ["rowcast.hello", "rowcast.beat", "rowcast.toolarge"]) on(name, () => {});
  on("rowcast.bye", (data) => onBye && bye(data.reason, data.expires_in));
  on("rowcast.reset", (data) => onReset?.(data.reason));
  if (onEvent) for (const name of events) on(name, (data, event) => onEvent(name, data, event));
  open();

  return { on, close, get state() { return state; }, get lastEventId() { return cursor; } };
}
