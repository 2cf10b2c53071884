// The stores that the elements of a page share.

import { RowcastInbox } from "../../../rowcast-inbox-store.js";

const stores = new Set();

/** Returns a store, a function that an element must call when it no longer uses the store, and a function that sets whether the element
 * lets new rows wait. Elements with the same options share one store. New rows wait while one of the elements lets them wait. */
export function take(options) {
  const names = ["events", "inbox", "token", "withCredentials"];
  const shared = [...stores].find((other) => names.every((name) => other.options[name] === options[name])) ?? create(options);
  shared.users++;
  clearTimeout(shared.timer);
  const hold = (holds) => {
    shared.holders[holds ? "add" : "delete"](hold);
    shared.store.hold = shared.holders.size > 0;
  };
  const giveBack = () => {
    hold(false);
    if (--shared.users) return;
    shared.timer = setTimeout(() => stores.delete(shared) && shared.store.close()); // unless an element takes the store again at once
  };
  return [shared.store, giveBack, hold];
}

function create(options) {
  const store = new RowcastInbox(options);
  const shared = { options, store, users: 0, timer: undefined, holders: new Set() };
  stores.add(shared);
  let warned;
  store.addEventListener("change", () => {
    const { state, error, url } = store;
    if (error === warned || (state !== "failed" && state !== "forbidden")) return;
    warned = error;
    console.warn(`rowcast-inbox: ${url} cannot be loaded: ${error?.status ?? state} ${error?.message ?? ""}`);
  });
  return shared;
}
