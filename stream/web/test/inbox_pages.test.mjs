import assert from "node:assert/strict";
import { test } from "node:test";
import { RowcastInbox } from "../src/inbox/store/index.js";
import { Rows } from "../src/inbox/store/rows.js";
import { settle } from "./hub.mjs";
import { InboxServer, shown } from "./inbox.mjs";

test("a row that was deleted does not return with a page", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 4; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  store.loadMore();
  await settle();
  server.process();
  server.delete("1");
  server.deliver(server.streams[0]);
  await settle();
  await server.answer();
  assert.deepEqual(shown(store), ["4", "3", "2"]);
});

test("the ids of deleted rows are kept only while a page is requested", async (t) => {
  const append = t.mock.method(Rows.prototype, "append");
  const server = new InboxServer(t);
  for (let i = 0; i < 4; i++) server.insert();
  const store = server.open({ limit: 2 }, RowcastInbox);
  await server.drain();
  store.loadMore();
  await server.drain();
  assert.deepEqual(shown(store), ["4", "3", "2", "1"]);
  const rows = append.mock.calls[0].this;
  server.delete("1");
  server.deliver(server.streams[0]);
  await settle();
  assert.deepEqual([shown(store), rows.deleted], [["4", "3", "2"], undefined]);
});

// The place of a row in the list is assigned at its INSERT. The row may commit after rows with a later place.
test("a row that has arrived late is not added again with its page", async (t) => {
  const server = new InboxServer(t);
  for (let i = 0; i < 4; i++) server.insert();
  const store = server.open({ limit: 2 });
  await server.drain();
  server.log.push({ row: server.rows[1] });
  server.deliver(server.streams[0]);
  await settle();
  store.loadMore();
  await server.drain();
  assert.deepEqual(shown(store), ["2", "4", "3", "1"]);
});

test("after a reset the list is loaded again", async (t) => {
  const server = new InboxServer(t);
  server.insert();
  const store = server.open();
  await server.drain();
  server.insert();
  server.streams[0].at++; // the stream does not bring the row
  server.streams[0].send(`event: rowcast.reset\ndata: {"reason": "expired"}\nid: ${server.cursor}\n\n`);
  await server.drain();
  assert.deepEqual(shown(store), ["2", "1"]);
});

test("a long list is not loaded again while new rows wait", async (t) => {
  const server = new InboxServer(t);
  const insert = async (n) => {
    for (let i = 0; i < n; i++) server.insert();
    await server.drain();
  };
  for (let i = 0; i < 600; i++) server.insert();
  const store = server.open({ limit: 100 });
  await server.drain();
  store.hold = true;
  while (store.hasMore) {
    store.loadMore();
    await server.drain();
  }
  await insert(500);
  assert.deepEqual([store.items.length, store.waiting], [600, 500]);
  await insert(1); // the number of rows that wait is bounded too
  assert.deepEqual([store.items.length, store.waiting, store.items[0].id], [100, 0, "1101"]);
  await insert(450);
  store.hold = false;
  assert.equal(store.items.length, 550);
  await insert(1);
  assert.deepEqual([store.items.length, store.items[0].id], [100, "1552"]);
});
