import assert from "node:assert/strict";
import { test } from "node:test";
import { Hub, settle } from "./hub.mjs";

const stream = { "Content-Type": "text/event-stream" };
const polls = (request) => request.url.searchParams.get("poll") === "1";

/** Opens a source whose stream is withheld, and returns its first poll. */
async function fallBack(hub, withhold) {
  const source = hub.open({ lastEventId: "1-c" });
  const request = await hub.request(1);
  assert.ok(!polls(request));
  withhold(request);
  await hub.pass(10);
  assert.ok(request.aborted);
  const poll = await hub.request(2);
  assert.ok(polls(poll));
  assert.equal(poll.cursor, "1-c");
  return { source, poll };
}

test("a stream that is withheld is replaced by polls", async (t) => {
  for (const [name, withhold, reason] of [["headers", (r) => r.answer(200, stream), "buffered"], ["nothing", () => {}, "timeout"]]) {
    await t.test(name, async (t) => {
      const hub = new Hub(t);
      let { source, poll } = await fallBack(hub, withhold);
      for (let n = 2; n < 6; n++) {
        await hub.pass(14);
        poll.greet(`${n - 1}-c`).row(n).end();
        poll = await hub.request(n + 1);
        assert.ok(polls(poll));
        assert.equal(poll.cursor, `${n}-c`);
      }
      assert.deepEqual(source.heard.map(([, data]) => data), Array.from({ length: 4 }, (_, i) => i + 2));
      assert.deepEqual(source.states, [`retrying ${reason}`, "open buffered"]);
    });
  }
});

test("after a minute, and then after five, the client tries a stream again, and polls if it is withheld too", async (t) => {
  const hub = new Hub(t);
  let { source, poll } = await fallBack(hub, (r) => r.answer(200, stream));
  let n = 2;
  const untilStream = async () => {
    const began = Date.now();
    while (polls(poll)) {
      await hub.pass(15);
      poll.greet(`${n - 1}-c`).row(n).end();
      poll = await hub.request(++n);
    }
    return (Date.now() - began) / 1_000;
  };
  assert.ok(Math.abs((await untilStream()) - 60) <= 15);
  await hub.pass(10);
  poll = await hub.request(++n);
  assert.ok(polls(poll));
  assert.deepEqual(source.states, ["retrying buffered", "open buffered"]);
  assert.ok(Math.abs((await untilStream()) - 300) <= 15);
  poll.greet(`${n - 1}-c`);
  await settle();
  assert.deepEqual(source.states.slice(2), ["open"]);
  poll.end();
  await hub.wait();
  assert.ok(!polls(await hub.request(n + 1)));
});

test("after an answer with retry, the client waits", async (t) => {
  const hub = new Hub(t);
  const { source, poll } = await fallBack(hub, (r) => r.answer(200, stream));
  poll.answer(200, stream).send("retry: 6000\n").end();
  assert.ok(Math.abs((await hub.wait()) - 6) < 0.5);
  const next = await hub.request(3);
  assert.ok(polls(next));
  next.greet("2-c").send("retry: 8000\nevent: rowcast.beat\ndata: {}\nid: 3-c\n\n").end();
  assert.ok(Math.abs((await hub.wait()) - 8) < 0.5);
  assert.equal((await hub.request(4)).cursor, "3-c");
  assert.deepEqual(source.states, ["retrying buffered", "retrying end", "open buffered", "retrying end"]);
});

test("if answers do not move the cursor, the client polls at most once a second", async (t) => {
  const hub = new Hub(t);
  let { poll } = await fallBack(hub, (r) => r.answer(200, stream));
  for (let n = 3; n < 6; n++) {
    poll.greet("1-c").end();
    assert.ok((await hub.wait()) >= 0.75);
    poll = await hub.request(n);
  }
});

test("if polls get no answer either, streams are tried again", async (t) => {
  const hub = new Hub(t);
  const { source, poll } = await fallBack(hub, () => {});
  await hub.pass(22);
  assert.deepEqual(source.states, ["retrying timeout"]);
  await hub.wait();
  assert.ok(poll.aborted);
  assert.ok(!polls(await hub.request(3)));
  assert.equal(source.states.at(-1), "retrying silence");
});

test("a clock that is set back does not prolong the polls", async (t) => {
  const hub = new Hub(t);
  let { poll } = await fallBack(hub, () => {});
  hub.ahead = -24 * 3600 * 1000;
  let n = 2;
  for (let seconds = 0; polls(poll); seconds += 5) {
    assert.ok(seconds < 70, "the client polls for more than a minute");
    await hub.pass(5);
    poll.greet(`${n}-c`).row(++n).end();
    poll = await hub.request(n);
  }
});
