import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "./hub.mjs";
import { InboxServer, shown } from "./inbox.mjs";

test("undo reverts the last change, also a change of all rows", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const store = server.open();
  await server.drain();
  store.archive(["2"]);
  const undone = store.undo();
  await server.drain();
  assert.equal(await undone, true);
  assert.deepEqual(shown(store), ["3", "2", "1"]);
  store.archiveAll();
  await server.drain();
  assert.deepEqual(shown(store), []);
  store.undo();
  await server.drain();
  assert.deepEqual(shown(store), ["3", "2", "1"]);
  assert.equal(await store.undo(), false);
});

test("undo can be repeated after a failure, and skips what has changed since", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 2; i++) server.insert();
  const store = server.open();
  await server.drain();
  store.read(["1", "2"]);
  await server.drain();
  server.mark("unread", ["2"]);
  server.mark("read", ["2"]);
  await server.drain();
  const failed = store.undo();
  await settle();
  await server.answer(0, 503);
  assert.deepEqual([await failed, shown(store), store.errors], [false, ["2r", "1r"], [["undo", 503]]]);
  const undone = store.undo();
  await settle();
  await server.answer();
  assert.deepEqual([await undone, shown(store)], [true, ["2r", "1s"]]);
});

test("a readAll can be undone after a newer readAll is undone", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  store.readAll();
  await server.drain();
  server.insert();
  await server.drain();
  store.readAll();
  await server.drain();
  const undo = async (version) => {
    const undone = store.undo(version);
    await server.drain();
    return undone;
  };
  assert.equal(await undo(1), false, "the older readAll, before the newer one is undone");
  assert.equal(await undo(2), true, "the newer readAll");
  assert.equal(await undo(1), true, "the older readAll, after the newer one is undone");
  assert.deepEqual(shown(store), ["2s", "1s"]);
});

test("a change can be undone on another device", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 3; i++) server.insert();
  const [store, other] = [server.open(), server.open()];
  const changes = [];
  other.addEventListener("inbox", ({ detail }) => changes.push([detail.action, detail.version, shown(other).length]));
  await server.drain();
  store.archive(["1", "2"]);
  await server.drain();
  store.unarchive(["1"]);
  store.archive(["1"]);
  await server.drain();
  assert.deepEqual(changes, [["archive", 1, 1], ["unarchive", 2, 2], ["archive", 3, 1]]); // after the list has changed
  const undone = other.undo(1);
  await server.drain();
  assert.deepEqual([await undone, shown(store), shown(other), other.unreadCount], [true, ["3", "2"], ["3", "2"], 2]);
  for (const device of [store, other]) {
    const again = device.undo(1);
    await server.drain();
    assert.equal(await again, false);
  }
  // The page that has made a change shows at once that it is undone.
  const read = store.read(["2"]);
  await server.drain();
  assert.equal(await read, true);
  const own = store.undo(5);
  await settle();
  assert.deepEqual(shown(store), ["3", "2s"]); // at once
  await server.drain();
  assert.deepEqual([await own, shown(other)], [true, ["3", "2s"]]);
});
