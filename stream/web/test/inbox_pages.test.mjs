import assert from "node:assert/strict";
import { test } from "node:test";
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
