import assert from "node:assert/strict";
import { test } from "node:test";
import { settle } from "./hub.mjs";
import { InboxServer, shown } from "./inbox.mjs";

const SCHEDULES = +(process.env.SCHEDULES ?? 1_000);

/** Returns a generator of random numbers (mulberry32), so that a failure can be repeated. */
function generator(seed) {
  return (n) => {
    let t = (seed += 0x6d2b79f5);
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % n;
  };
}

// Each schedule has two devices. Rows, changes, answers, failures and parts of the streams come in random order. In the
// end, both devices show what the server has.
for (let from = 0; from < SCHEDULES; from += 100) {
  test(`schedules from ${from}`, async (t) => {
    for (let seed = from; seed < Math.min(from + 100, SCHEDULES); seed++) await t.test(`schedule ${seed}`, (t) => schedule(t, seed));
  });
}

async function schedule(t, seed) {
  const random = generator(seed);
  t.mock.method(Math, "random", () => random(1_000) / 1_000);
  const server = new InboxServer(t);
  for (let i = random(8); i > 0; i--) server.insert();
  const stores = [server.open({ limit: 3 }), server.open({ limit: 20 })];
  for (let step = 0; step < 60; step++) {
    await act(server, stores[random(2)], random, t);
    await settle();
  }
  for (const store of stores) store.hold = false;
  await server.drain();
  t.mock.timers.tick(60_000); // the longest time until a failed request for the list is repeated
  await server.drain();
  for (const [i, store] of stores.entries()) {
    const { unseen, unread } = server.counts();
    assert.deepEqual([store.unseenCount, store.unreadCount], [unseen, unread], `the counts of store ${i}`);
    while (store.hasMore) {
      store.loadMore();
      await server.drain();
    }
    const want = server.visible().map(({ id, seen, read }) => id + (read ? "r" : seen ? "s" : ""));
    assert.deepEqual(shown(store).toSorted(), want.toSorted(), `the list of store ${i}`);
    assert.deepEqual([store.unseenCount, store.unreadCount], [unseen, unread], `the counts of store ${i} with all rows`);
    store.close();
  }
}

/** Does one random action of a page, or one random step of the server. */
async function act(server, store, random, t) {
  const ids = () => [String(1 + random(server.rows.length || 1))];
  const request = server.requests.length && random(server.requests.length);
  const actions = [
    () => server.insert(),
    () => server.insert(),
    () => server.insertDuring(["read", "archive"][random(2)], ids()),
    () => store.read(ids()),
    () => store.unread(ids()),
    () => store.archive(ids()),
    () => store.unarchive(ids()),
    () => store.seen([...ids(), ...ids()]),
    () => store.readAll(),
    () => random(3) || store.archiveAll(),
    () => store.undo(),
    () => store.undo(1 + random(server.version + 1)),
    () => store.loadMore(),
    () => (store.hold = !store.hold),
    () => random(4) || store.load(),
    () => random(3) || (server.rows.length && server.delete(...ids())),
    () => t.mock.timers.tick(random(1_500)),
  ];
  const moves = [
    () => server.requests[request]?.result || (server.requests.length && server.process(request)),
    () => server.requests.length && server.answer(request),
    () => server.requests.length && server.answer(request),
    () => random(3) || (server.requests.length && server.answer(request, [503, 0, 409][random(3)])),
    () => server.streams.length && server.deliver(server.streams[random(server.streams.length)]),
    () => server.streams.length && server.deliver(server.streams[random(server.streams.length)]),
  ];
  const chosen = random(2) ? actions : moves;
  chosen[random(chosen.length)]();
}
