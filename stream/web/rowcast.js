/**
 * The browser client of rowcast: a stream of events that reconnects after every kind of failure.
 *
 *     import { subscribe } from "/rowcast.js";
 *     const stream = subscribe("/events", { onReset: () => location.reload() });
 *     stream.on("notify", (data) => show(data.msg));
 *
 * A plain EventSource works too. It reconnects after a lost connection and resumes. This client adds:
 *   - It opens a new stream after an error status, such as a proxy's 502 while the hub restarts. An EventSource stops there.
 *   - It watches the heartbeats. An EventSource does not notice a connection that was lost while a laptop slept.
 *   - It calls onBye before the credentials expire, and opens a new stream with the renewed ones.
 *   - It parses the data, and reports the state of the stream.
 * A new stream continues after the last row that was received, so no row is lost or repeated. If the hub cannot continue there, onReset is
 * called: load the page's state again, because rows may be missing.
 */

const HEARTBEAT = 15_000; // milliseconds; used until the hub's own value arrives in rowcast.hello
const SILENCE = 2.5; // heartbeat intervals without an event after which the connection is considered lost
const RETRYING = 10; // the same limit while the EventSource waits before it reconnects, because the hub may have asked for a long wait
const [FIRST_WAIT, LONGEST_WAIT] = [1_000, 60_000]; // milliseconds before a stream is opened again after an error status

/**
 * @typedef {"connecting" | "open" | "closed"} State connecting: there is no connection yet, or it was lost;
 *   open: rowcast.hello was received; closed: close() was called.
 *
 * @callback Listener
 * @param {any} data the parsed data of the event
 * @param {MessageEvent} event the event of the EventSource. parseInt(event.lastEventId) is the row's id. A message that was sent with
 *   NOTIFY has no id of its own; its lastEventId is the id of an earlier event.
 *
 * @typedef {object} Options
 * @property {boolean} [withCredentials] send cookies to a hub of another origin; default false
 * @property {string} [lastEventId] the cursor to resume from: the result of rowcast.cursor(), or the lastEventId of an earlier stream
 * @property {string[]} [events] the event names for which onEvent is called; default ["message"]. An EventSource does not report
 *   events with other names.
 * @property {(name: string, data: any, event: MessageEvent) => void} [onEvent] called for each event with one of these names
 * @property {(reason: string, expiresIn: number) => any} [onBye] called when the credentials expire in expiresIn seconds ("expired"),
 *   and when the stream ends: the app did not renew it ("revoked"), the user or a group was disconnected ("disconnected"), or the
 *   hub or a proxy answered with an error status ("closed"). Renew the credentials here, for example with a fetch that sets a new
 *   cookie, and return the promise. When it is fulfilled, a new stream is opened.
 * @property {(reason: string) => void} [onReset] called when the stream could not resume and continues from now: load the page's state
 *   again, because events may be missing
 * @property {(state: State) => void} [onState] called after each change of the state
 *
 * @typedef {object} Stream
 * @property {(name: string, listener: Listener) => () => void} on adds a listener for events with a name; returns a function that
 *   removes it
 * @property {() => void} close closes the stream for good
 * @property {State} state
 * @property {string} lastEventId the cursor from which another stream would resume; "" before the first event with an id, unless the
 *   option lastEventId was given
 */

/** Opens a stream and keeps it open until close() is called.
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
  let patience = 1; // a factor of SILENCE
  let failures = 0; // streams in a row that ended with an error status
  let timer; // opens a new stream, unless something is received first

  function open() {
    const address = new URL(url, globalThis.document?.baseURI ?? globalThis.location.href);
    // When the EventSource reconnects by itself, it repeats this URL and sends a newer cursor in a header. The hub prefers the header.
    if (cursor) address.searchParams.set("last_event_id", cursor);
    source?.close();
    source = new EventSource(address, { withCredentials });
    source.onerror = onError;
    for (const name of listeners.keys()) source.addEventListener(name, receive);
    schedule(onSilence, SILENCE * patience * heartbeat);
    change("connecting");
  }

  function receive(event) {
    if (event.currentTarget !== source) return;
    if (event.lastEventId) cursor = event.lastEventId;
    const data = JSON.parse(event.data);
    const hello = event.type === "rowcast.hello";
    if (hello && data.heartbeat > 0) heartbeat = data.heartbeat * 1000;
    if (hello) failures = 0;
    else patience = 1;
    schedule(onSilence, SILENCE * patience * heartbeat);
    // The EventSource's own "open" event is not used, because a proxy may answer with an empty stream while the hub is unreachable.
    if (hello) change("open");
    for (const listener of [...listeners.get(event.type)]) {
      try {
        listener(data, event);
      } catch (error) {
        reportError(error); // as the browser does for its own listeners; the next listener is called
      }
    }
  }

  function onError() {
    if (source.readyState !== EventSource.CLOSED) {
      schedule(onSilence, RETRYING * heartbeat);
    } else {
      // An EventSource does not reveal the status. It may be permanent (401), so the wait grows. It is random, because all clients of a
      // hub may reconnect at the same time.
      const wait = Math.min(FIRST_WAIT * 2 ** failures++, LONGEST_WAIT);
      schedule(onBye ? reopen : open, wait * (0.5 + Math.random() / 2));
    }
    change("connecting");
  }

  // Opens a new stream after an error status, even if the page did not renew its credentials.
  async function reopen() {
    const ended = source;
    await renew("closed", 0);
    if (source === ended && state !== "closed") open();
  }

  async function bye(reason, expiresIn) {
    const ending = source;
    if (await renew(reason, expiresIn) && source === ending && state !== "closed") open();
  }

  /** Calls onBye and reports whether the page has renewed its credentials. */
  async function renew(reason, expiresIn) {
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

  function onSilence() {
    // A large event on a slow connection looks like silence. It would never arrive if each attempt had the same limit.
    patience = Math.min(patience * 2, 16);
    open();
  }

  function schedule(action, wait) {
    clearTimeout(timer);
    timer = setTimeout(action, wait);
  }

  // Call this after schedule, because onState may close the stream.
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

  // These events are always received, because they move the cursor and show that the connection is alive.
  for (const name of ["rowcast.hello", "rowcast.beat", "rowcast.toolarge", "rowcast.unreadable"]) on(name, () => {});
  on("rowcast.bye", (data) => onBye && bye(data.reason, data.expires_in));
  on("rowcast.reset", (data) => onReset?.(data.reason));
  if (onEvent) for (const name of events) on(name, (data, event) => onEvent(name, data, event));
  open();

  return { on, close, get state() { return state; }, get lastEventId() { return cursor; } };
}
