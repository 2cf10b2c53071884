// Tests src/tabs.js with random schedules of simulated tabs. The environment variable SCHEDULES sets the number of schedules.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { isValid } from "../src/messages.js";
import { Tabs } from "../src/tabs.js";
import { Browser, Clock, Connection, Page } from "./browser.mjs";
import { Database, Hub } from "./cursors.mjs";
import { mutations } from "./mutations.mjs";
import { play } from "./tabs_random.mjs";

const SCHEDULES = Number(process.env.SCHEDULES ?? 1000);
process.on("unhandledRejection", (error) => { throw error; });

test("each tab receives each event once and in causal order, or a reset", async () => {
  // In these schedules, a leader that was blocked for seconds relays messages late. They need the option silent.
  const rare = [4871, 7830, 14333, 17188, 27937].map((seed) => [seed, { silent: true }]);
  rare.push([2917, { silent: false }]); // in this schedule, a tab without a cursor has two cursors after its first frame
  for (const [seed, kinds] of [...Array.from({ length: SCHEDULES }, (_, seed) => [seed, {}]), ...rare]) {
    const errors = await play(seed, { Tabs, kinds });
    assert.deepEqual(errors.slice(0, 3), [], `schedule ${seed}`);
  }
});

/** Returns a browser, and a function that opens a tab in it. A tab records its states and the streams that it has begun. */
function newBrowser() {
  const clock = new Clock();
  const browser = new Browser(clock, () => 0.5, [new Hub(new Database())], 2_000);
  const newTab = (onState = (_) => {}, properties = {}) => {
    const tab = { page: Object.assign(new Page(browser), properties), states: [], streams: [] };
    const connect = (from, callbacks) => tab.streams[tab.streams.push(new Connection(tab.page, from, callbacks)) - 1];
    const status = ({ state }) => {
      tab.states.push(state);
      onState(tab.tabs);
    };
    tab.tabs = new Tabs(connect, { name: "/events", user: "alice" }, { frame() {}, status }, browser.window(tab.page));
    tab.tabs.open();
    return tab;
  };
  return { clock, newTab };
}

test("a tab whose stream is cut reports it and opens another stream", async () => {
  const { clock, newTab } = newBrowser();
  const { page, states, tabs } = newTab();
  await clock.runUntil(clock.now + 500);
  for (const stream of page.streams) stream.cut();
  await clock.runUntil(clock.now + 1_000); // less than the time after which the tab gives up a silent stream
  tabs.close();
  assert.deepEqual(states, ["connecting", "open", "retrying", "open"]);
});

test("a tab is connecting until it has a stream or hears the leader", async () => {
  const { clock, newTab } = newBrowser();
  const [leader, follower] = [newTab(), newTab()];
  for (const { states } of [leader, follower]) assert.deepEqual(states, ["connecting"]);
  await clock.runUntil(clock.now + 500);
  for (const { states } of [leader, follower]) assert.deepEqual(states, ["connecting", "open"]);
  assert.equal(follower.streams.length, 0);
});

test("a tab may be closed while it reports that it is connecting", async () => {
  const { clock, newTab } = newBrowser();
  const { page, states, streams } = newTab((tabs) => tabs.close());
  await clock.runUntil(clock.now + 60_000);
  assert.deepEqual([states, streams, page.timers.size], [["connecting"], [], 0]);
});

test("a tab may be closed while it takes over and reports that it is connecting", async () => {
  const { clock, newTab } = newBrowser();
  const leader = newTab();
  await clock.runUntil(clock.now + 500);
  let last = false;
  const heir = newTab((tabs) => last && tabs.close());
  heir.tabs.connect = (_, { status }) => ({ open: () => status({ state: "connecting" }), close() {}, check() {} });
  await clock.runUntil(clock.now + 500);
  leader.streams[0].stop();
  leader.streams[0].status({ state: "retrying", retryAt: 1 });
  await clock.runUntil(clock.now + 500);
  last = true;
  leader.tabs.close();
  await clock.runUntil(clock.now + 60_000);
  assert.deepEqual([heir.states, heir.page.timers.size], [["connecting", "open", "retrying", "connecting"], 0]);
});

test("a tab that opens the leader's stream again is connecting until the leader answers", async () => {
  const { clock, newTab } = newBrowser();
  const [leader, follower] = [newTab(), newTab()];
  await clock.runUntil(clock.now + 500);
  leader.streams[0].refuse();
  await clock.runUntil(clock.now + 500);
  follower.tabs.open();
  assert.deepEqual(follower.states, ["connecting", "open", "signed-out", "connecting"]);
  await clock.runUntil(clock.now + 500);
  assert.deepEqual(follower.states, ["connecting", "open", "signed-out", "connecting", "open"]);
  assert.equal(follower.streams.length, 0);
});

test("a new tab asks a leader that is signed out to open its stream again", async () => {
  const { clock, newTab } = newBrowser();
  const leader = newTab();
  await clock.runUntil(clock.now + 500);
  leader.streams[0].refuse();
  await clock.runUntil(clock.now + 500);
  const follower = newTab();
  await clock.runUntil(clock.now + 500);
  assert.deepEqual([leader.states, follower.states], [["connecting", "open", "signed-out", "open"], ["connecting", "open"]]);
  leader.streams[0].refuse();
  await clock.runUntil(clock.now + 500);
  assert.deepEqual(follower.states, ["connecting", "open", "signed-out"]);
});

test("a tab that may not use a channel has its own stream", async () => {
  const { clock, newTab } = newBrowser();
  const tabs = [newTab(() => {}, { channelless: true }), newTab(() => {}, { channelless: true })];
  await clock.runUntil(clock.now + 500);
  for (const { states, streams } of tabs) assert.deepEqual([states, streams.length], [["connecting", "open"], 1]);
});

test("a tab without locks that is signed out stays so when it is hidden and visible again", async () => {
  const { clock, newTab } = newBrowser();
  const { page, states, streams, tabs } = newTab(() => {}, { lockless: true });
  await clock.runUntil(clock.now + 500);
  page.hide(true);
  streams[0].refuse();
  await clock.runUntil(clock.now + 10_000);
  page.hide(false);
  await clock.runUntil(clock.now + 500);
  assert.deepEqual([states, streams.length], [["open", "signed-out"], 1]);
  tabs.open();
  await clock.runUntil(clock.now + 500);
  assert.deepEqual([states, streams.length], [["open", "signed-out", "open"], 1]);
});

test("a state that the leader repeats is reported once", async () => {
  const { clock, newTab } = newBrowser();
  const [leader, follower] = [newTab(), newTab()];
  await clock.runUntil(clock.now + 500);
  leader.streams[0].stop();
  for (const retryAt of [1, 2]) {
    leader.streams[0].status({ state: "retrying", retryAt });
    await clock.runUntil(clock.now + 10_000); // five heartbeat intervals
  }
  for (const { states } of [leader, follower]) assert.deepEqual(states, ["connecting", "open", "retrying", "retrying"]);
});

test("messages with numbers that would keep a leader from being heard are ignored", () => {
  const message = { t: "state", epoch: 1_800_000_000_000, n: 1, at: "1-0-5--e-a", status: { state: "open" }, heartbeat: 15_000 };
  assert.ok(isValid(message));
  assert.ok(isValid({ ...message, heartbeat: undefined }));
  for (const number of [1e308, Infinity, NaN, 2 ** 53, -1, "1", [1], {}, null, true, 1n]) {
    for (const field of ["epoch", "n", "heartbeat"]) assert.ok(!isValid({ ...message, [field]: number }), `${field}: ${String(number)}`);
  }
  for (const heartbeat of [0, 2 ** 31]) assert.ok(!isValid({ ...message, heartbeat }));
});

test("a schedule fails if a rule is left out", { skip: process.env.MUTATIONS ? false : "takes minutes; set MUTATIONS=1" }, async (t) => {
  const sources = new URL("../src/", import.meta.url);
  const names = readdirSync(sources).filter((name) => name.endsWith(".js"));
  for (const [rule, kinds, ...edits] of mutations) {
    await t.test(rule, async (t) => {
      const dir = mkdtempSync(join(tmpdir(), "tabs-"));
      t.after(() => rmSync(dir, { recursive: true }));
      writeFileSync(join(dir, "package.json"), '{"type": "module"}');
      let left = edits.length / 2;
      for (const name of names) {
        let text = readFileSync(new URL(name, sources), "utf8");
        for (let i = 0; i < edits.length; i += 2) {
          if (text.includes(edits[i])) left--;
          text = text.replace(edits[i], () => edits[i + 1]);
        }
        writeFileSync(join(dir, name), text);
      }
      assert.equal(left, 0, "each text must be in exactly one module");
      const { Tabs: Mutant } = await import(pathToFileURL(join(dir, "tabs.js")).href);
      for (let seed = 0; seed < 3000; seed++) {
        const found = await play(seed, { Tabs: Mutant, kinds }).then(([error]) => error, String);
        if (found) return t.diagnostic(`schedule ${seed}: ${found}`);
      }
      assert.fail("no schedule failed without the rule");
    });
  }
});
