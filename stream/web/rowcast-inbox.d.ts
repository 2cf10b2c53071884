// The types of rowcast-inbox.js. README.md is the documentation.

import type { InboxItem, InboxOptions, RowcastInbox } from "./rowcast-inbox-store.js";

export { RowcastInbox } from "./rowcast-inbox-store.js";
export type { InboxChange, InboxItem, InboxOptions, InboxState } from "./rowcast-inbox-store.js";

/** A text, or its forms by plural category. {n} stands for the number. */
export type InboxText = string | ({ other: string } & Partial<Record<Intl.LDMLPluralRule, string>>);

export class RowcastInboxElement extends HTMLElement {
  static strings: Record<string, Record<string, InboxText>>;
  strings: Record<string, InboxText>;
  token: InboxOptions["token"];
  withCredentials: boolean;
  render: ((item: InboxItem) => Node | string | null | undefined) | undefined;
  open: boolean;
  readonly store: RowcastInbox | undefined;
}

declare global {
  interface HTMLElementTagNameMap {
    "rowcast-inbox": RowcastInboxElement;
  }
  interface HTMLElementEventMap {
    "rowcast-click": CustomEvent<{ item: InboxItem; url: string | undefined; event: MouseEvent }>;
  }
}
