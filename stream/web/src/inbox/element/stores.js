// The stores that the elements of a page share.

import { RowcastInbox } from "../../../rowcast-inbox-store.js";

const stores = new Map(); // by the URLs

/** Returns the store for some options, and a function that gives it back. Elements with the same URLs share one store. */
export function take(options) {
  const key = [options.events, options.inbox].join(" ");
  const shared = stores.get(key) ?? { store: new RowcastInbox(options), users: 0 };
  stores.set(key, shared);
  shared.users++;
  clearTimeout(shared.timer);
  const giveBack = () => {
    if (--shared.users) return;
    shared.timer = setTimeout(() => stores.delete(key) && shared.store.close()); // unless an element returns at once
  };
  return [shared.store, giveBack];
}
