import assert from "node:assert/strict";
import { test } from "node:test";
import { Connection } from "../src/connection.js";
import { Hub, page, settle } from "./hub.mjs";

test("a stream without an answer is given up after 10 s", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  await hub.request(1);
  await hub.pass(9.75);
  assert.deepEqual(source.states, []);
  await hub.pass(0.25);
  assert.deepEqual(source.states, ["retrying timeout"]);
  const request = await hub.request(2);
  assert.ok(hub.requests[0].aborted);
  request.greet();
  await hub.pass(12);
  assert.equal(source.state, "open");
});

test("a silent stream is delayed after 1.5 heartbeats and given up after 2.5", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const request = (await hub.request(1)).greet("1-c", 10);
  await hub.pass(14.75);
  assert.deepEqual(source.states, ["open"]);
  await hub.pass(0.25);
  assert.deepEqual(source.states, ["open", "delayed silence"]);
  request.send(":\n");
  await settle();
  assert.deepEqual(source.states, ["open", "delayed silence", "open"]);
  await hub.pass(24.75);
  await hub.request(1);
  await hub.pass(0.25);
  await hub.request(2);
  assert.ok(request.aborted);
  assert.deepEqual(source.states.slice(3), ["delayed silence", "retrying silence"]);
});

test("a hub that cannot read from PostgreSQL delays the stream", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const beat = (behind) => `event: rowcast.beat\ndata: {"behind": ${behind}}\nid: 2-c\n\n`;
  const request = (await hub.request(1)).greet().send(beat(5)).send(beat(6)).send(beat(21)).send(":\n").send(beat(0));
  await settle();
  assert.deepEqual(source.states, ["open", "delayed database", "open"]);
  request.send(beat(9)).row(3);
  await settle();
  assert.deepEqual(source.states.slice(3), ["delayed database", "open"]);
});

test("after a silence, the limit of silence doubles until an event arrives", async (t) => {
  const hub = new Hub(t);
  hub.open();
  const silence = async (n, begin) => {
    const request = await hub.request(n);
    begin(request.answer(200, { "Content-Type": "text/event-stream" }));
    return Math.round((await hub.wait()) / 37.5);
  };
  const slow = (request) => request.send("data: a part");
  const patience = [];
  for (let n = 1; n <= 6; n++) patience.push(await silence(n, slow));
  patience.push(await silence(7, (request) => request.send("data: 1\n\n")));
  assert.deepEqual(patience, [1, 2, 4, 8, 16, 16, 1]);
});

test("each byte of a slow event shows that the stream is alive", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const request = (await hub.request(1)).greet().send('data: "');
  for (let i = 0; i < 20; i++) {
    await hub.pass(20);
    request.send("x");
  }
  request.send('"\n\n');
  await settle();
  await hub.request(1);
  assert.deepEqual(source.heard, [["message", "x".repeat(20)]]);
});

test("a late timer does not end a stream that has received bytes", async (t) => {
  const hub = new Hub(t);
  hub.open();
  const request = (await hub.request(1)).greet();
  t.mock.timers.setTime(Date.now() + 600_000 - 1); // time passes, and no timer runs
  request.row(2);
  await settle();
  await hub.pass(15);
  await hub.request(1);
});

test("the clock may be set back", async (t) => {
  const hub = new Hub(t);
  hub.open();
  (await hub.request(1)).greet();
  await settle();
  const real = Date.now;
  t.mock.method(Date, "now", () => real() - 3_600_000);
  assert.equal(Math.floor(await hub.wait()), 60); // 22.5 s until the change is found, and 37.5 s of silence
});

test("100 changes of visibility do not disturb a healthy stream", async (t) => {
  const dispatch = page(t);
  const hub = new Hub(t);
  const source = hub.open();
  (await hub.request(1)).greet();
  for (let i = 0; i < 100; i++) {
    document.hidden = i % 2 === 0;
    dispatch("visibilitychange");
    dispatch("online");
    dispatch("offline");
    dispatch("pageshow", { persisted: false });
    await hub.pass(1);
    if (i % 15 === 14) hub.requests[0].send('event: rowcast.beat\ndata: {"behind": 0}\n\n');
  }
  await hub.request(1);
  assert.deepEqual(source.states, ["open"]);
});

test("a page that wakes up replaces a silent stream", async (t) => {
  for (const event of ["visibilitychange", "online", "pageshow"]) {
    await t.test(event, async (t) => {
      const dispatch = page(t);
      const hub = new Hub(t);
      hub.open();
      const request = (await hub.request(1)).greet();
      await hub.pass(22.5);
      await hub.request(1);
      document.hidden = event === "visibilitychange";
      dispatch(event);
      if (document.hidden) {
        await hub.pass(1);
        await hub.request(1);
        document.hidden = false;
        dispatch(event);
      }
      assert.equal(await hub.wait(), 0);
      assert.ok(request.aborted);
    });
  }
});

test("a page that wakes up tries at once, but not before the server allows it", async (t) => {
  const dispatch = page(t);
  const hub = new Hub(t);
  hub.open();
  hub.random = 0.999;
  for (let n = 1; n <= 6; n++) {
    (await hub.request(n)).fail();
    if (n < 6) await hub.wait();
  }
  await hub.pass(2);
  await hub.request(6);
  dispatch("online");
  assert.equal(await hub.wait(), 0);
  (await hub.request(7)).answer(503, { "Retry-After": "20" });
  await settle();
  dispatch("online");
  assert.ok((await hub.wait()) >= 20);
});

test("a page that is frozen or cached ends its stream at once and resumes", async (t) => {
  for (const [sleep, wake, properties] of [["freeze", "resume", {}], ["pagehide", "pageshow", { persisted: true }]]) {
    for (const [state, begin] of Object.entries({ open: (r) => r.greet(), connecting: () => {}, retrying: (r) => r.fail() })) {
      await t.test(`${sleep} while ${state}`, async (t) => {
        const dispatch = page(t);
        const hub = new Hub(t);
        const source = hub.open({ lastEventId: "1-c" });
        const old = await hub.request(1);
        begin(old);
        await settle();
        assert.equal(source.state, state);
        dispatch(sleep);
        assert.equal(old.aborted, true);
        await hub.pass(700);
        dispatch("online");
        dispatch("visibilitychange");
        await hub.request(1);
        dispatch(wake, properties);
        dispatch(wake, properties);
        const request = (await hub.request(2)).greet("1-c").row(2);
        assert.equal(request.cursor, "1-c");
        await settle();
        assert.deepEqual(source.heard, [["message", 2]]);
      });
    }
  }
});

test("a page that was frozen or cached tries again, but not before the server allows it", async (t) => {
  for (const [sleep, wake] of [["freeze", "resume"], ["pagehide", "pageshow"]]) {
    await t.test(sleep, async (t) => {
      const dispatch = page(t);
      const hub = new Hub(t);
      const source = hub.open();
      (await hub.request(1)).answer(503, { "Retry-After": "60" });
      await settle();
      dispatch(sleep);
      await hub.pass(10);
      dispatch(wake);
      await settle();
      assert.deepEqual(source.states, ["retrying status"]); // not "connecting"
      assert.ok((await hub.wait()) >= 49);
    });
  }
});

test("a connection that is opened during a wait reports the wait", async (t) => {
  const hub = new Hub(t);
  const reported = [];
  const connection = new Connection(new URL("http://hub.example/events"), {}).from("", { frame() {}, status: (status) => reported.push(status) });
  t.after(() => connection.close());
  connection.open();
  (await hub.request(1)).answer(503, { "Retry-After": "60" });
  await settle();
  connection.close();
  await hub.pass(10);
  connection.open();
  assert.equal(reported.length, 3);
  assert.deepEqual(reported[2], reported[1]); // the same cause, and the same retryAt
  assert.ok((await hub.wait()) >= 49);
});

test("a source that was closed or signed out does not wake up", async (t) => {
  for (const [name, end] of Object.entries({ closed: (source) => source.close(), "signed out": (_, request) => request.answer(401) })) {
    await t.test(name, async (t) => {
      const dispatch = page(t);
      const hub = new Hub(t);
      const source = hub.open();
      end(source, await hub.request(1));
      await settle();
      for (const [type, properties] of [["freeze"], ["resume"], ["pagehide"], ["pageshow", { persisted: true }], ["online"], ["visibilitychange"]]) {
        dispatch(type, properties);
      }
      await hub.pass(100);
      await hub.request(1);
    });
  }
});

test("a clock that is set back delays no attempt", async (t) => {
  const dispatch = page(t);
  const hub = new Hub(t);
  hub.open();
  (await hub.request(1)).fail();
  await hub.wait();
  (await hub.request(2)).fail();
  await hub.pass(0.25);
  hub.ahead = -24 * 3600 * 1000;
  dispatch("online");
  assert.ok((await hub.wait()) <= 1);
  await hub.request(3);
});
