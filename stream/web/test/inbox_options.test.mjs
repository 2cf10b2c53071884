import assert from "node:assert/strict";
import { test } from "node:test";
import { RowcastInbox } from "../rowcast-inbox-store.js";
import { agesAt } from "../src/inbox/element/time.js";
import { languageOf, STRINGS, translate } from "../src/inbox/element/texts.js";
import { once } from "../src/inbox/element/toasts.js";
import { settle } from "./hub.mjs";

test("wrong options are errors that say what to do", () => {
  for (const [args, want] of [
    [[], /the option events must be a URL, and an absolute one outside of a page/],
    [["/events"], /needs an object with options/],
    [[null], /needs an object with options/],
    [[{ events: 5 }], /the option events must be a URL/],
    [[{ events: "http://[" }], /the option events must be a URL/],
    [[{ events: "http://hub.example/events", inbox: "/inbox" }], /the option inbox must be a URL/],
    [[{ events: "http://hub.example/events", token: "secret" }], /the option token must be a function/],
    [[{ events: "http://hub.example/events", withCredentials: "include" }], /the option withCredentials must be true or false/],
    [[{ events: "http://hub.example/events", limit: 0 }], /the option limit must be a number from 1 to 100/],
    [[{ events: "http://hub.example/events", limit: "5" }], /the option limit must be a number from 1 to 100/],
  ]) {
    assert.throws(() => new RowcastInbox(...args), (error) => error instanceof TypeError && want.test(error.message), String(want));
  }
});

test("an age is never negative", () => {
  const now = Date.UTC(2027, 0, 10);
  for (const [seconds, want] of [[-7_200, "now"], [0, "now"], [44, "now"], [50, "1 minute ago"], [3_599, "60 minutes ago"], [3_600, "1 hour ago"], [86_400, "yesterday"]]) {
    assert.equal(agesAt(now, "en")(new Date(now - seconds * 1_000)), want);
  }
  assert.equal(agesAt(now, "en")(new Date(NaN)), "");
});

test("texts and times have one language, and a value that is not a text is ignored", () => {
  const element = (lang) => ({ closest: () => ({ getAttribute: () => lang }), getRootNode: () => undefined });
  for (const [lang, want] of [["fr", "en"], ["zh-tw", "zh-TW"], ["en-GB", "en-GB"], ["not a language", "en"]]) assert.equal(languageOf(element(lang), STRINGS), want);
  assert.equal(translate({ bell: (n) => n }, STRINGS, "en", "bell", 3), "Notifications, 3 new");
  assert.equal(translate({ new: { one: 5, other: "{n}" } }, STRINGS, "en", "new", 1), "1 new notification");
  assert.equal(translate({ title: "Inbox" }, STRINGS, "zh", "title"), "Inbox");
  assert.equal(translate({}, STRINGS, "en", "bell", 100), "Notifications, more than 99 new");
});

test("a page that may not use locks shows a toast once", async (t) => {
  const { navigator } = globalThis;
  const define = (value) => Object.defineProperty(globalThis, "navigator", { configurable: true, value });
  t.after(() => define(navigator));
  for (const [name, locks] of [["none", undefined], ["denied", { request: async () => { throw new DOMException("denied", "SecurityError"); } }]]) {
    define({ locks });
    let shown = 0;
    for (let i = 0; i < 2; i++) {
      once(name, () => shown++);
      await settle();
    }
    assert.equal(shown, 1, name);
  }
});
