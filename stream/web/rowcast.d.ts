// The types of rowcast.js. README.md is the documentation.

export interface Options {
  /**
   * Returns a token, which the client sends in the header Authorization. `why` is "open" if the client has no token, "expired" before
   * the token expires, and "refused" after the hub has answered with 401. A callback that renews a cookie returns nothing.
   */
  token?: (why: Why) => string | null | undefined | void | Promise<string | null | undefined | void>;
  /** Sends cookies to a hub of another origin. */
  withCredentials?: boolean;
  /** The cursor to resume from: the result of rowcast.cursor(), or the lastEventId of an earlier stream. */
  lastEventId?: string | null;
  /** The key of sessionStorage under which the cursor is kept, so that a reload of the page resumes. */
  persist?: string | false;
  /**
   * The user, as in the column recipient. If it is set, a new tab uses the stream of another tab at once. Otherwise, each tab first opens
   * a short stream of its own.
   */
  user?: string;
  /** Whether the tabs of a browser share one stream; default true. */
  shared?: boolean;
}

export type Why = "open" | "expired" | "refused";

export type State = "connecting" | "open" | "delayed" | "retrying" | "signed-out" | "forbidden" | "closed";

/** Why a stream is delayed or retrying. An open stream has the reason "buffered" while the client polls. */
export interface Cause {
  reason?: "buffered" | "database" | "silence" | "end" | "network" | "timeout" | "status" | "type" | "token" | "length";
  /** The status of the response. */
  status?: number;
  /** What fetch or the token callback has thrown, or another error of the attempt. */
  error?: unknown;
}

export interface Status extends Cause {
  state: State;
  /** For "retrying": the time of the next attempt, in milliseconds since 1970. */
  retryAt?: number;
  /** Whether the tab cannot share a stream, and has its own. */
  alone?: boolean;
}

export type RowcastStateEvent = Event & Status;

/** A row, a NOTIFY message or an event of the hub. */
export interface RowcastEvent<Data = any> extends Event {
  /** The name of the event. It differs from `type` only for listeners of "rowcast.event". */
  readonly name: string;
  /** The parsed data, or the text itself if it is not JSON. */
  readonly data: Data;
  /** The cursor after this event. */
  readonly lastEventId: string;
  /** The id of the row; undefined if the event is not a row. */
  readonly id: number | undefined;
  /** The column created_at; undefined before 1970, and if the event is not a row. */
  readonly time: Date | undefined;
}

/** The events of the hub and of the client. */
export interface HubEvents {
  "rowcast.state": RowcastStateEvent;
  "rowcast.event": RowcastEvent;
  "rowcast.hello": RowcastEvent<{ recipients: string[]; heartbeat: number }>;
  "rowcast.beat": RowcastEvent<{ behind: number }>;
  "rowcast.reset": RowcastEvent<{ reason: "expired" | "history" | "ahead" | "malformed" | "user" }>;
  "rowcast.bye": RowcastEvent<{ reason: "expired" | "revoked" | "disconnected"; expires_in: number }>;
  "rowcast.toolarge": RowcastEvent<{ id: number; size: number | null }>;
  "rowcast.unreadable": RowcastEvent<{ id: number; reason: string }>;
}

// The types of Node, without the library "dom", do not have the names of these types.
type AddOptions = Parameters<EventTarget["addEventListener"]>[2];
type RemoveOptions = Parameters<EventTarget["removeEventListener"]>[2];
type Listener<E extends Event> = ((this: RowcastSource, event: E) => any) | { handleEvent(event: E): any };

export class RowcastSource extends EventTarget {
  /** Opens a stream. A relative URL is relative to the page or the worker. */
  constructor(url: string | URL, options?: Options);

  readonly url: string;
  readonly state: State;
  /** The cursor after the last event; before the first event, the cursor to resume from, or "". */
  readonly lastEventId: string;

  onmessage: ((event: RowcastEvent) => any) | null;
  onevent: ((event: RowcastEvent) => any) | null;
  onstate: ((event: RowcastStateEvent) => any) | null;
  onreset: ((event: HubEvents["rowcast.reset"]) => any) | null;

  /** Opens the stream again if it is signed-out, forbidden or closed. */
  open(): void;
  close(): void;

  addEventListener<K extends keyof HubEvents>(type: K, listener: Listener<HubEvents[K]> | null, options?: AddOptions): void;
  addEventListener<Data = any>(type: string, listener: Listener<RowcastEvent<Data>> | null, options?: AddOptions): void;
  removeEventListener(type: string, listener: Listener<any> | null, options?: RemoveOptions): void;
}

/** The events of one chunk of a stream. A client that has seen everything up to `prev`, and receives them, has seen everything up to `cursor`. */
export interface Frame {
  prev: string;
  cursor: string;
  events: FrameEvent[];
  /** Whether the hub's heartbeat is among the events. */
  beat: boolean;
}

/** An event as it was sent. The data is text. */
export interface FrameEvent {
  type: string;
  data: string;
  lastEventId: string;
  id?: number;
  time?: number;
}
