import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "./hub.mjs";
import { InboxServer, shown } from "./inbox.mjs";

test("the rows of the stream follow the rows of the list", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  server.insert();
  const store = server.open();
  assert.equal(store.state, "loading");
  await settle();
  server.process();
  server.insert();
  await server.answer();
  assert.deepEqual(shown(store), ["2", "1"]);
  await server.drain();
  assert.deepEqual(shown(store), ["3", "2", "1"]);
  assert.deepEqual([store.unseenCount, store.unreadCount, store.hasMore, store.state], [3, 3, false, "open"]);
  assert.deepEqual(store.arrived, ["3"]);
});

test("a change is shown at once, and only its fields go back if it fails", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const store = server.open();
  await server.drain();
  const read = store.read(["1", "2"]);
  const archived = store.archive(["2", "3"]);
  assert.deepEqual([shown(store), store.unreadCount], [["1r"], 0]);
  server.insert();
  server.deliver(server.streams[0]);
  await settle();
  assert.deepEqual(shown(store), ["4", "1r"]);
  await server.answer(0, 503);
  assert.deepEqual(shown(store), ["4", "1"]);
  assert.equal(await read, false);
  await server.answer(0, 0);
  assert.equal(await archived, false);
  assert.deepEqual([shown(store), store.unreadCount], [["4", "3", "2", "1"], 4]);
  assert.deepEqual(store.errors, [["read", 503], ["archive", undefined]]);
});

test("a newer change of another device stays", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  store.read(["1"]);
  await settle();
  server.process();
  server.mark("unread", ["1"]);
  for (let i = 0; i < 2; i++) server.deliver(server.streams[0]);
  await settle();
  assert.deepEqual(shown(store), ["1r"]);
  await server.answer();
  assert.deepEqual([shown(store), store.unreadCount], [["1s"], 1]);
});

test("readAll and archiveAll change only the rows that the list shows", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  store.hold = true;
  server.insert(); // waits
  server.deliver(server.streams[0]);
  await settle();
  server.insert(); // has not arrived
  assert.equal(store.waiting, 1);
  store.readAll();
  assert.deepEqual([shown(store), store.unreadCount], [["1r"], 1]);
  await server.drain();
  store.hold = false;
  assert.deepEqual([shown(store), store.unreadCount], [["3", "2", "1r"], 2]);
  assert.equal(server.counts().unread, 2);
  store.archiveAll();
  await server.drain();
  assert.deepEqual([shown(store), server.visible().length], [[], 0]);
});

test("pages follow each other without gap or repetition", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 7; i++) server.insert();
  const store = server.open({ limit: 3 });
  await server.drain();
  store.loadMore();
  assert.equal(store.loadMore(), store.loadMore());
  await settle();
  server.process();
  server.insert();
  server.delete("5");
  server.delete("3");
  server.mark("read", ["2"]);
  for (let i = 0; i < 4; i++) server.deliver(server.streams[0]);
  await settle();
  await server.answer(); // is older than the change, so the page is requested again
  await server.drain();
  assert.deepEqual(shown(store), ["8", "7", "6", "4", "2r", "1"]);
  assert.equal(store.hasMore, false);
});

test("a page of an earlier list is dropped", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 4; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  store.loadMore();
  store.load();
  await settle();
  await server.answer(1);
  await server.answer(0);
  assert.deepEqual(shown(store), ["4", "3"]);
});

test("seen rows are sent at most once a second", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const store = server.open();
  await server.drain();
  const sent = () => server.requests.filter(({ method }) => method === "POST").map(({ values }) => values.ids);
  store.seen(["3"]);
  store.seen(["2", "3"]);
  assert.equal(store.unseenCount, 1);
  t.mock.timers.tick(1);
  await settle();
  assert.deepEqual(sent(), [["3", "2"]]);
  await server.answer();
  store.seen(["1"]);
  t.mock.timers.tick(900);
  await settle();
  assert.deepEqual(sent(), []);
  t.mock.timers.tick(200);
  await settle();
  assert.deepEqual(sent(), [["1"]]);
});

test("a failed list is requested again, but not after a refusal", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await settle();
  await server.answer(0, 503);
  assert.deepEqual([store.state, store.error.status], ["retrying", 503]);
  t.mock.timers.tick(2_100);
  await settle();
  await server.answer(0, 401);
  assert.equal(store.state, "signed-out");
  t.mock.timers.tick(60_000);
  await settle();
  assert.equal(server.requests.length, 0);
  store.load();
  await server.drain();
  assert.deepEqual([shown(store), store.state, store.error], [["1"], "open", undefined]);
});

test("a refused token is renewed once", async (t) => {
  const server = new InboxServer(t);
  const asked = [];
  const store = server.open({ token: async (why) => (asked.push(why), `token ${asked.length}`) });
  await settle();
  await server.answer(0, 401);
  assert.deepEqual([asked, server.requests[0].headers.Authorization], [["open", "refused"], "Bearer token 2"]);
  await server.answer(0, 401);
  assert.equal(store.state, "signed-out");
});

test("after another user has signed in, the list is empty, and its changes do not reach the other user's inbox", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  server.user = "bob";
  const changes = [store.read(["3"]), store.archive(["2"]), store.readAll()];
  await server.drain();
  assert.deepEqual([await Promise.all(changes), server.version], [[false, false, false], 0]);
  assert.deepEqual([shown(store), store.unreadCount, store.unseenCount, store.hasMore, store.state, store.error.status], [[], 0, 0, false, "signed-out", 412]);
  assert.equal(server.streams.length, 0);
  store.load();
  await server.drain();
  assert.deepEqual([shown(store), store.state], [["3", "2"], "open"]);
  store.read(["3"]);
  await server.drain();
  assert.equal(server.version, 1);
});

test("after a request is refused with 401, the list is empty", async (t) => {
  for (const [what, happen] of [
    ["a change", async (server, store) => (store.read(["1"]), await settle(), server.answer(0, 401))],
    ["the next page", async (server, store) => (store.loadMore(), await settle(), server.answer(0, 401))],
    ["the list", async (server, store) => (store.load(), await settle(), server.answer(0, 401))],
  ]) {
    const server = new InboxServer(t);
    for (let i = 0; i < 3; i++) server.insert();
    const store = server.open({ limit: 2 });
    await server.drain();
    await happen(server, store);
    assert.deepEqual([shown(store), store.unreadCount, store.state], [[], 0, "signed-out"], what);
    store.close();
    t.mock.reset();
    t.mock.timers.reset();
  }
});

test("if all answers are older than an event, the client does not repeat requests without end", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 5; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  server.mark("read", ["5"]);
  server.deliver(server.streams[0]);
  await settle();
  const list = server.list.bind(server);
  let pages = 0;
  server.list = (limit, before) => ({ ...list(limit, before), ...(before !== undefined && { version: 0 * ++pages }) });
  const more = store.loadMore();
  await server.drain();
  assert.equal(await more, false);
  assert.ok(pages > 1 && pages < 10, `${pages} requests for the page, want from 2 to 9`);
  server.list = (limit, before) => ({ ...list(limit, before), version: 0 });
  let requests = 0;
  for (let i = 0; i < 100; i++) {
    if (i === 0) server.mark("unread", ["5"]);
    for (const stream of server.streams) while (server.deliver(stream));
    await settle();
    while (server.requests.length) requests++, await server.answer();
    t.mock.timers.tick(1_000);
  }
  assert.ok(requests < 20, `${requests} requests in 100 seconds, want fewer than 20`);
});

test("a token callback that never answers does not hold up later changes", { timeout: 20_000 }, async (t) => {
  const server = new InboxServer(t);
  server.insert();
  server.insert();
  let answers = true;
  const store = server.open({ token: () => (answers ? "token" : new Promise(() => {})) });
  await server.drain();
  answers = false;
  const lost = store.read(["1"]);
  await settle();
  await server.answer(0, 401); // the callback is asked for a new token
  answers = true;
  const kept = store.read(["2"]);
  t.mock.timers.tick(30_000);
  assert.equal(await lost, false);
  await server.drain();
  assert.equal(await kept, true);
  assert.deepEqual(shown(store), ["2r", "1"]);
});

test("nothing is left after close", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  assert.equal(server.streams.length, 1);
  store.close();
  assert.deepEqual([server.streams.length, store.state], [0, "closed"]);
});

test("an older count never replaces a newer one", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 5; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  store.read(["5"]);
  await settle();
  server.process();
  server.mark("read", ["3", "2"]);
  for (let i = 0; i < 2; i++) server.deliver(server.streams[0]);
  await settle();
  assert.equal(store.unreadCount, 2);
  await server.answer();
  assert.equal(store.unreadCount, 2);
});

test("the answer of an older load is dropped", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  store.load();
  await settle();
  server.process(0);
  server.insert();
  await server.answer(1);
  await server.answer(0);
  assert.deepEqual(shown(store), ["2", "1"]);
});

test("rows that became seen are not sent after close", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 2; i++) server.insert();
  const store = server.open();
  await server.drain();
  const saved = store.seen(["1"]);
  store.close();
  t.mock.timers.tick(5_000);
  await settle();
  assert.deepEqual([server.requests.length, await saved], [0, false]);
});

test("the token of a user who has signed out is forgotten", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  let user = "alice";
  const store = server.open({ token: async () => user });
  await server.drain();
  store.read(["1"]);
  await settle();
  await server.answer(0, 412);
  user = "bob";
  store.load();
  await settle();
  assert.equal(server.requests[0].headers.Authorization, "Bearer bob");
});

test("a row that the stream repeats is shown once", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  store.source.dispatchEvent(Object.assign(new Event("rowcast.event"), { id: "1", name: "notify", data: {}, lastEventId: "1-0-1" }));
  assert.deepEqual([shown(store), store.arrived], [["1"], []]);
});

test("counts that stay old are requested a few times, and then the list", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  server.mark("read", ["3"]);
  server.insert();
  for (let i = 0; i < 2; i++) server.deliver(server.streams[0]);
  await settle();
  const list = server.list.bind(server);
  server.list = (limit, before) => ({ ...list(limit, before), ...(limit === 1 && { version: 0 }) });
  const limits = [];
  for (let i = 0; i < 120; i++) {
    t.mock.timers.tick(1_000);
    await settle();
    while (server.requests.length) limits.push((await server.answer()).url.searchParams.get("limit"));
  }
  assert.deepEqual([limits.filter((limit) => limit === "1").length, limits.at(-1) !== "1"], [5, true]);
});

test("an event that is not a valid change has no effect", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  const uncaught = t.mock.fn();
  process.on("uncaughtException", uncaught);
  t.after(() => process.off("uncaughtException", uncaught));
  const counts = { version: 9, unseen: 7, unread: 7 };
  for (const change of [null, 1, "x", [], {}, { action: "constructor", ids: ["1"], ...counts }, { action: "__proto__", ids: ["1"], ...counts }, { action: "toString" },
    { action: ["read"], ids: ["1"], ...counts }, { action: "delete" }, { action: "delete", ids: "1" }, { action: "delete", ids: [1] }, { action: "read", ids: ["1"] },
    { action: "read", ...counts }, { action: "read", ids: { length: 1 }, ...counts }, { action: "unarchive", up_to: server.cursor, ...counts },
    { action: "read", ids: ["1"], ...counts, version: 1e300 }, { action: "read", ids: ["1"], ...counts, unread: "<b>" }, { action: "reload", version: 1e300 }]) {
    server.log.push({ change });
    await server.drain();
    assert.deepEqual([shown(store), store.unseenCount, store.unreadCount, store.state], [["1"], 1, 1, "open"], JSON.stringify(change));
  }
  await new Promise((resolve) => setImmediate(resolve));
  assert.deepEqual(uncaught.mock.calls.map(({ arguments: [error] }) => error), []);
  store.read(["1"]);
  await server.drain();
  assert.deepEqual(shown(store), ["1r"]);
});

test("rows that wait are bounded", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  store.hold = true;
  for (let i = 0; i < 600; i++) server.insert();
  for (let i = 0; i < 3; i++) {
    for (const stream of server.streams) while (server.deliver(stream));
    await settle();
  }
  assert.ok(store.waiting <= 501, `${store.waiting} rows wait, want at most 501`);
  await server.drain();
  assert.equal(store.unseenCount, 100);
});
