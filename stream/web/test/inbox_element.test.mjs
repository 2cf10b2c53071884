import assert from "node:assert/strict";
import { test } from "node:test";
import { textsOf } from "../src/inbox/element/content.js";
import { agesAt } from "../src/inbox/element/time.js";
import { languageOf } from "../src/inbox/element/texts.js";
import { once } from "../src/inbox/element/toasts.js";

test("days are calendar days in the time zone of the page", () => {
  process.env.TZ = "America/New_York";
  const ages = {
    "2026-07-10T23:00:00": [["2026-07-10T00:30:00", "22 hours ago"], ["2026-07-09T00:30:00", "yesterday"], ["2026-07-08T23:30:00", "2 days ago"], ["2026-07-04T00:00:00", "6 days ago"], ["2026-07-03T23:59:00", "Jul 3, 2026"]],
    "2026-11-01T23:30:00": [["2026-11-01T00:05:00", "today"]], // this day has 25 hours
    "2026-03-10T00:30:00": [["2026-03-08T00:30:00", "2 days ago"]], // March 8 has 23 hours
  };
  for (const [now, times] of Object.entries(ages)) for (const [time, want] of times) assert.equal(agesAt(+new Date(now), "en")(new Date(time)), want, `${time} at ${now}`);
});

test("a text of white space is not shown", () => {
  assert.deepEqual(textsOf({ event: "notify", data: " \n" }), { title: "notify", body: "", url: undefined });
  assert.deepEqual(textsOf({ event: "notify", data: { title: "\u00a0", msg: "one", text: "\t", body: "two" } }), { title: "one", body: "two", url: undefined });
  assert.equal(textsOf({ event: "notify", data: null }).title, "notify");
});

test("the language is found outside of a shadow tree, and a form with the name host is not followed", () => {
  Object.defineProperty(globalThis, "navigator", { value: { language: "en-GB" }, configurable: true });
  const node = (root, lang) => ({ closest: () => lang && { getAttribute: () => lang }, getRootNode: () => root });
  const page = { nodeType: 9, host: undefined };
  page.host = node(page); // the form
  const shadow = (host) => ({ nodeType: 11, host });
  assert.equal(languageOf(node(page), { en: {} }), "en-GB");
  assert.equal(languageOf(node(shadow(node(page))), { en: {} }), "en-GB");
  assert.equal(languageOf(node(shadow(node(page, "zh"))), { en: {}, zh: {} }), "zh");
});

test("without locks, the keys of toasts are forgotten after 30 seconds", (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
  let shown = 0;
  const show = () => once("key", () => shown++);
  show();
  t.mock.timers.tick(29_999);
  show();
  assert.equal(shown, 1);
  t.mock.timers.tick(1);
  show();
  assert.equal(shown, 2);
});
