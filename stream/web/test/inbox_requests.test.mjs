import assert from "node:assert/strict";
import { test } from "node:test";
import { page, settle } from "./hub.mjs";
import { InboxServer, shown } from "./inbox.mjs";

test("changes are sent one after the other", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  store.read(["1"]);
  store.unread(["1"]);
  await settle();
  while (server.requests.length) await server.answer(server.requests.length - 1); // the newest request first
  await server.drain();
  assert.deepEqual([shown(store), server.rows[0].read], [["1s"], false]);
});

test("a request for all rows has one cursor, even if the source has two", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  server.streams[0].send(`event: notify\ndata: {}\ntime: ${Date.now()}\nid: 2-0-2 3-0-1\n\n`);
  await settle();
  store.readAll();
  await settle();
  assert.deepEqual([shown(store).length, server.requests[0].values.all], [2, "2-0-2"]);
});

test("if the hub no longer knows the cursor of the list, the list is loaded again", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  server.insert();
  server.streams[0].at++; // the stream does not bring the row
  const saved = store.readAll();
  await settle();
  await server.answer(0, 409);
  assert.deepEqual([await saved, store.errors], [false, [["read", 409]]]);
  await server.drain();
  assert.deepEqual([shown(store), store.state], [["2", "1"], "open"]);
});

test("a result of the token callback that is not a token is not used again", async (t) => {
  const server = new InboxServer(t);
  const results = ["<!doctype html>\n<title>Sign in</title>", "good"];
  const store = server.open({ token: async () => results.shift() });
  await settle();
  assert.deepEqual([server.requests.length, results.length], [0, 1]);
  t.mock.timers.tick(30_000);
  await settle();
  assert.equal(server.requests[0].headers.Authorization, "Bearer good");
  await server.drain();
  assert.equal(store.state, "open");
});

test("a token is not used again after the page was in the back/forward cache", async (t) => {
  const dispatch = page(t);
  const server = new InboxServer(t);
  let calls = 0;
  const store = server.open({ token: async () => `token-${++calls}` });
  await server.drain();
  dispatch("pagehide", { persisted: true });
  dispatch("pageshow", { persisted: true });
  await settle();
  store.load();
  await settle();
  assert.deepEqual([server.requests[0].headers.Authorization, calls], ["Bearer token-2", 2]);
});

test("an answer after close neither loads the list nor opens a stream", async (t) => {
  for (const status of [200, 409]) {
    await t.test(`${status}`, async (t) => {
      const server = new InboxServer(t);
      server.insert();
      const store = server.open();
      await server.drain();
      server.insert();
      server.deliver(server.streams[0]); // after a row has arrived, the counts of an answer are doubtful for a time
      await settle();
      store.readAll();
      await settle();
      store.close();
      await server.answer(0, status);
      t.mock.timers.tick(60_000);
      await settle();
      assert.deepEqual([server.requests.length, server.streams.length, store.state], [0, 0, "closed"]);
    });
  }
});

test("a list that cannot be loaded is requested again after Retry-After, but within 10 minutes", async (t) => {
  for (const [after, want] of [["5", 5], ["2592000", 600], ["1e400", 600]]) {
    await t.test(after, async (t) => {
      const server = new InboxServer(t);
      server.open();
      await settle();
      server.requests.shift().resolve(new Response("", { status: 503, headers: { "Retry-After": after } }));
      await settle();
      t.mock.timers.tick(want * 1_000 - 1);
      await settle();
      assert.equal(server.requests.length, 0);
      t.mock.timers.tick(1);
      await settle();
      assert.equal(server.requests.length, 1);
    });
  }
});

test("a clock that is set back does not delay the marks as seen", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 2; i++) server.insert();
  const store = server.open();
  await server.drain();
  store.seen(["1"]);
  t.mock.timers.tick(1);
  await settle();
  await server.answer();
  const { now } = Date;
  t.mock.method(Date, "now", () => now() - 3_600_000);
  store.seen(["2"]);
  t.mock.timers.tick(1_000);
  await settle();
  assert.deepEqual(server.requests.map(({ values }) => values), [{ ids: ["2"] }]);
});

/** Opens the list of alice, calls act, and lets bob sign in before its request is answered. */
async function signIn(t, act) {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  const result = await act(server, store);
  store.load();
  await settle();
  server.user = "bob"; // has the same rows, but has not seen or read them
  server.version = 1;
  for (const row of server.rows) Object.assign(row, { seen: false, read: false });
  await server.answer(1);
  assert.deepEqual([store.state, shown(store)], ["signed-out", []]);
  store.load();
  await settle();
  await server.answer(1);
  return { server, store, result };
}

async function readOne(server, store) {
  const saved = store.read(["3"]);
  await settle();
  return { saved };
}

test("an answer for the earlier user does not change the list of the next user", async (t) => {
  const { server, store, result } = await signIn(t, async (server, store) => {
    server.mark("read", ["1"]);
    const result = await readOne(server, store);
    server.process();
    return result;
  });
  await server.answer();
  assert.equal(await result.saved, true);
  assert.deepEqual([shown(store), store.unseenCount, store.unreadCount], [["3", "2"], 3, 3]);
  assert.equal(await store.undo(), false); // it would be the change of the earlier user
});

test("an undo of the earlier user does not change the list of the next user", async (t) => {
  const { server, store, result } = await signIn(t, async (server, store) => {
    await readOne(server, store);
    await server.answer();
    const undone = store.undo();
    await settle();
    server.process();
    return { undone };
  });
  server.mark("read", ["3"]);
  store.load();
  await settle();
  await server.answer(1);
  server.requests[0].result = { version: 9, unseen: 0, unread: 0, undone: true };
  await server.answer();
  assert.equal(await result.undone, true);
  assert.deepEqual([shown(store), store.unseenCount, store.unreadCount], [["3r", "2"], 2, 2]);
});

test("a refusal of a request of the earlier user does not sign the next user out", async (t) => {
  const { server, store, result } = await signIn(t, readOne);
  await server.answer();
  assert.equal(await result.saved, false);
  assert.deepEqual([shown(store), store.state], [["3", "2"], "open"]);
});
