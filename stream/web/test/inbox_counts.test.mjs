import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "./hub.mjs";
import { InboxServer } from "./inbox.mjs";

/** Opens a list of two rows that has another page, so that the hub counts. */
async function open(t) {
  const server = new InboxServer(t);
  for (let i = 0; i < 5; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  return { server, store };
}

/** Delivers all entries of the log. */
async function deliver(server) {
  for (const stream of server.streams) while (server.deliver(stream));
  await settle();
}

/** Lets the time pass after which the counts are requested. */
async function wait(t, time = 1_500) {
  t.mock.timers.tick(time);
  await settle();
}

test("a row that arrives is counted at once", async (t) => {
  const { server, store } = await open(t);
  store.hold = true;
  for (const count of [6, 7]) {
    server.insert();
    await deliver(server);
    assert.deepEqual([store.unseenCount, store.unreadCount], [count, count]);
    store.hold = false;
  }
  await wait(t);
  assert.equal(server.requests.length, 0);
});

test("a count is at most 100 with a change that has no answer yet", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 102; i++) server.insert();
  server.mark("read", ["102", "101", "100"]);
  const store = server.open({ limit: 3 });
  await server.drain();
  assert.equal(store.unreadCount, 99);
  store.unread(["102", "101", "100"]);
  await settle();
  assert.equal(store.unreadCount, 100);
});

test("counts that may not contain a row that has arrived are requested again", async (t) => {
  const { server, store } = await open(t);
  server.insertDuring("read", ["1"]);
  await deliver(server);
  assert.equal(store.unreadCount, 4);
  await wait(t);
  await server.answer();
  assert.equal(store.unreadCount, 5);
});

test("counts that contain a row that has not arrived are requested again", async (t) => {
  const { server, store } = await open(t);
  server.insert();
  store.read(["1"]);
  await settle();
  await server.answer(); // contains the row
  await deliver(server);
  assert.equal(store.unreadCount, 6);
  await wait(t);
  server.insert();
  await server.answer(); // contains another row
  await deliver(server);
  await server.drain();
  assert.equal(store.unreadCount, 6);
});

test("counts that contain a row that arrives much later are requested again", async (t) => {
  const { server, store } = await open(t);
  server.insert();
  store.read(["1"]);
  await settle();
  await server.answer(); // contains the row
  await wait(t, 10_000);
  await deliver(server);
  assert.equal(store.unreadCount, 6);
  await wait(t);
  await server.answer();
  assert.equal(store.unreadCount, 5);
});

test("counts from before a row arrived or a change was made are not taken", async (t) => {
  const { server, store } = await open(t);
  server.delete("1");
  await deliver(server);
  await wait(t);
  server.process();
  server.insert();
  await deliver(server);
  await server.answer();
  assert.equal(store.unreadCount, 6); // the deletion is not counted yet
  store.read(["5"]);
  await settle();
  await wait(t);
  assert.deepEqual(server.requests.map(({ method }) => method), ["POST", "GET"]);
  server.process(); // the counts contain the change, and the store does not know it
  await server.answer(1);
  assert.equal(store.unreadCount, 5);
  await server.drain();
  assert.equal(store.unreadCount, 4);
});

test("a request for counts that fails is repeated, more and more seldom", async (t) => {
  const { server, store } = await open(t);
  server.delete("1");
  await deliver(server);
  for (const time of [1_500, 3_000, 6_000]) {
    await wait(t, time - 1);
    assert.equal(server.requests.length, 0);
    await wait(t, 1);
    await server.answer(0, 503);
  }
  assert.equal(store.unreadCount, 5);
  await wait(t, 12_000);
  await server.answer();
  assert.equal(store.unreadCount, 4);
});

test("counts are not requested after the list is closed, or its user has signed out", async (t) => {
  for (const [what, end] of [
    ["close", (server, store) => store.close()],
    ["sign-out", async (server, store) => (store.loadMore(), await settle(), server.answer(server.requests.length - 1, 401))],
  ]) {
    for (const isSent of [false, true]) {
      const { server, store } = await open(t);
      server.delete("1");
      await deliver(server);
      if (isSent) await wait(t);
      assert.equal(server.requests.length, +isSent);
      await end(server, store);
      if (isSent) await server.answer(0, 503);
      await wait(t, 60_000);
      assert.equal(server.requests.length, 0, `requests after ${what}`);
      store.close();
      t.mock.reset();
      t.mock.timers.reset();
    }
  }
});
