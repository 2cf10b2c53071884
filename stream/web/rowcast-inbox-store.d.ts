// The types of rowcast-inbox-store.js. README.md is the documentation.

import type { RowcastSource, State, Why } from "./rowcast.js";

/** A row of the list. */
export interface InboxItem<Data = any> {
  id: string;
  /** Undefined for a row that has arrived since the list was loaded. */
  recipient: string | undefined;
  event: string;
  /** Null if the row is too large. */
  data: Data;
  /** The column created_at. */
  time: Date;
  seen: boolean;
  read: boolean;
  archived: boolean;
  too_large: boolean;
}

export interface InboxOptions {
  /** The URL of the stream. Default "/events". */
  events?: string | URL;
  /** The URL of the list. Default: the URL of the stream with "inbox" as the last part of its path. */
  inbox?: string | URL;
  /** The rows of a page. Default 20. */
  limit?: number;
  token?: (why: Why) => string | null | undefined | void | Promise<string | null | undefined | void>;
  withCredentials?: boolean;
}

/** A change on this or another device. */
export interface InboxChange {
  action: "seen" | "read" | "unread" | "archive" | "unarchive" | "delete" | "reload";
  ids?: string[];
  /** All rows up to this cursor have changed. */
  up_to?: string;
  version?: number;
}

export type InboxState = State | "loading" | "failed";

export class RowcastInbox extends EventTarget {
  constructor(options?: InboxOptions);

  readonly items: InboxItem[];
  readonly waiting: number;
  /** 100 means "more than 99". */
  readonly unseenCount: number;
  /** 100 means "more than 99". */
  readonly unreadCount: number;
  readonly hasMore: boolean;
  readonly state: InboxState;
  readonly error: (Error & { status?: number }) | undefined;
  readonly url: string;
  readonly source: RowcastSource | undefined;
  hold: boolean;

  now(): number;
  load(): Promise<void>;
  loadMore(): Promise<boolean>;
  showWaiting(): void;
  seen(ids: Iterable<string>): Promise<boolean>;
  read(ids: Iterable<string>): Promise<boolean>;
  unread(ids: Iterable<string>): Promise<boolean>;
  archive(ids: Iterable<string>): Promise<boolean>;
  unarchive(ids: Iterable<string>): Promise<boolean>;
  readAll(): Promise<boolean>;
  archiveAll(): Promise<boolean>;
  undo(version?: number): Promise<boolean>;
  close(): void;

  addEventListener(type: "change", listener: (event: Event) => any, options?: Parameters<EventTarget["addEventListener"]>[2]): void;
  addEventListener(type: "row", listener: (event: CustomEvent<InboxItem>) => any, options?: Parameters<EventTarget["addEventListener"]>[2]): void;
  addEventListener(type: "inbox", listener: (event: CustomEvent<InboxChange>) => any, options?: Parameters<EventTarget["addEventListener"]>[2]): void;
  addEventListener(type: "error", listener: (event: Event & { error: Error & { status?: number }; action: string }) => any, options?: Parameters<EventTarget["addEventListener"]>[2]): void;
}
