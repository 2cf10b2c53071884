import assert from "node:assert/strict";
import { test } from "node:test";
import { RowcastSource } from "../src/index.js";
import { Hub, settle } from "./hub.mjs";

test("wrong options are refused with the name of the option", async (t) => {
  new Hub(t);
  const url = "http://hub.example/events";
  for (const [options, error] of [
    [{ token: "abc" }, "the option token must be a function"],
    [{ lastEventId: 5 }, "the option lastEventId must be a string"],
    [{ persist: true }, "the option persist must be a string"],
    [{ user: 7 }, "the option user must be a string"],
  ]) {
    assert.throws(() => new RowcastSource(url, options), { name: "TypeError", message: error });
  }
  assert.throws(() => new RowcastSource("/events"), { name: "TypeError", message: "the URL of the stream is malformed, or is relative outside of a page: /events" });
  for (const user of [undefined, null, ""]) new RowcastSource(url, { token: undefined, lastEventId: null, persist: false, user }).close();
});

test("events have their data, id, time and cursor", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const order = [];
  source.onmessage = (event) => order.push(["onmessage", event.data, event.id, event.lastEventId, event.time.toISOString()]);
  source.addEventListener("notify", ({ type, name, data }) => order.push([type, name, data === data, data.a]));
  source.addEventListener("rowcast.event", ({ type, name }) => order.push([type, name]));
  const request = await hub.request(1);
  request.greet().send('data: {"a": 1}\ntime: 0\nid: 12-c\n\nevent: notify\ndata: {"a": 2}\n\n');
  await settle();
  assert.deepEqual(order, [
    ["rowcast.event", "message"],
    ["onmessage", { a: 1 }, 12, "12-c", "1970-01-01T00:00:00.000Z"],
    ["rowcast.event", "notify"],
    ["notify", "notify", true, 2],
  ]);
  assert.equal(source.url, "http://hub.example/events");
});

test("the hub's own events are not rows", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const got = [];
  for (const name of ["hello", "beat", "reset", "bye"]) source.addEventListener(`rowcast.${name}`, ({ name, data, id }) => got.push([name, data, id]));
  source.onreset = ({ data }) => got.push(data.reason);
  (await hub.request(1)).greet().send(
    'event: rowcast.beat\ndata: {"behind":0}\nid: 2-c\n\nevent: rowcast.reset\ndata: {"reason":"history"}\nid: 3-c\n\nevent: rowcast.bye\ndata: {"reason":"revoked","expires_in":0}\n\n',
  );
  await settle();
  assert.deepEqual(got, [
    ["rowcast.hello", { recipients: ["alice"], heartbeat: 15 }, undefined],
    ["rowcast.beat", { behind: 0 }, undefined],
    "history",
    ["rowcast.reset", { reason: "history" }, undefined],
    ["rowcast.bye", { reason: "revoked", expires_in: 0 }, undefined],
  ]);
  assert.deepEqual(source.heard, []);
  assert.equal(source.lastEventId, "3-c");
});

test("malformed data of the hub's own events does not end the stream", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  (await hub.request(1)).greet().send("event: rowcast.beat\ndata: null\n\nevent: rowcast.bye\ndata: {\n\nevent: rowcast.hello\ndata: 5\n\n").row(9);
  await settle();
  assert.deepEqual(source.heard, [["message", 9]]);
  assert.deepEqual(source.states, ["open"]);
});

test("a stream resumes after each kind of end", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const ends = [(r) => r.end(), (r) => r.break(), (r) => r.send("data: cut off\nid: 99-c\n").end()];
  for (const [i, end] of ends.entries()) {
    const request = (await hub.request(i + 1)).greet(`${i}-c`);
    await hub.pass(2);
    request.row(i + 10);
    await settle();
    end(request);
    assert.equal(await hub.wait(), 0);
    assert.equal((await hub.request(i + 2)).cursor, `${i + 10}-c`);
  }
  assert.deepEqual(source.states, ["open", "retrying end", "open", "retrying network", "open", "retrying end"]);
  assert.deepEqual(source.heard, [["message", 10], ["message", 11], ["message", 12]]);
});

test("the first wait is 0, later waits are random from 1 s to a limit that grows to 30 s, and a byte resets them", async (t) => {
  for (const [random, want] of [[0, [0, 1, 1, 1, 1, 1, 1]], [0.999, [0, 2, 4, 8, 16, 30, 30]]]) {
    await t.test(`with the random number ${random}`, async (t) => {
      const hub = new Hub(t);
      hub.open();
      hub.random = random;
      const waits = [];
      for (let n = 1; n <= 7; n++) {
        const request = await hub.request(n);
        await hub.pass(1);
        request.fail();
        waits.push(await hub.wait());
      }
      assert.deepEqual(waits.map(Math.round), want);
      const request = (await hub.request(8)).answer(200, { "Content-Type": "text/event-stream" }).send(":");
      await hub.pass(1);
      request.end();
      assert.equal(await hub.wait(), 0);
    });
  }
});

test("if a server ends each stream at once, the client asks at most once a second", async (t) => {
  const hub = new Hub(t);
  hub.open();
  for (let n = 1; n <= 10; n++) (await hub.request(n)).greet().end(), assert.ok((await hub.wait()) >= 0.75);
});

test("retry and Retry-After are obeyed, but for 10 minutes at most", async (t) => {
  const answers = {
    "retry": [(r) => r.answer(200, { "Content-Type": "text/event-stream" }).send("retry: 6000\n\n").end(), 6],
    "a very long retry": [(r) => r.answer(200, { "Content-Type": "text/event-stream" }).send("retry: 99999999999\n\n").end(), 600],
    "Retry-After in seconds": [(r) => r.answer(503, { "Retry-After": "20" }), 25],
    "Retry-After as a date": [(r) => r.answer(429, { "Retry-After": new Date(Date.now() + 20_000).toUTCString() }), 25],
    "a Retry-After without meaning": [(r) => r.answer(503, { "Retry-After": "soon" }), 1],
    "a very long Retry-After": [(r) => r.answer(503, { "Retry-After": "99999999999" }), 600],
  };
  for (const [name, [answer, want]] of Object.entries(answers)) {
    await t.test(name, async (t) => {
      const hub = new Hub(t);
      hub.open();
      answer(await hub.request(1));
      assert.ok(Math.abs((await hub.wait()) - want) < 0.5);
    });
  }
});

test("after an answer that will probably be the same the next time, the wait is at least 10 s", async (t) => {
  for (const [status, headers, state] of [[202, {}, "status"], [400, {}, "status"], [404, {}, "status"], [200, { "Content-Type": "text/html" }, "type"], [200, {}, "type"]]) {
    await t.test(`${status} ${headers["Content-Type"]}`, async (t) => {
      const hub = new Hub(t);
      const source = hub.open();
      (await hub.request(1)).answer(status, headers);
      assert.ok((await hub.wait()) >= 10);
      assert.deepEqual(source.states, [`retrying ${state}`]);
      (await hub.request(2)).greet();
      await settle();
      assert.equal(source.state, "open");
    });
  }
});

test("after a status that may be different the next time, the wait is short", async (t) => {
  for (const status of [408, 425, 429, 500, 503]) {
    await t.test(`${status}`, async (t) => {
      const hub = new Hub(t);
      hub.open();
      (await hub.request(1)).answer(status);
      assert.ok((await hub.wait()) <= 1);
    });
  }
});

test("401, 403 and 204 stop until open is called", async (t) => {
  for (const [status, state] of [[401, "signed-out"], [403, "forbidden"], [204, "closed"]]) {
    await t.test(`${status}`, async (t) => {
      const hub = new Hub(t);
      const source = hub.open({ lastEventId: "5-c" });
      (await hub.request(1)).answer(status);
      await hub.pass(700);
      await hub.request(1);
      assert.deepEqual(source.states, [`${state} ${status}`]);
      source.open();
      source.open();
      const request = (await hub.request(2)).greet();
      await settle();
      assert.equal(request.cursor, "5-c");
      assert.equal(source.state, "open");
    });
  }
});

test("with the option user, the state is connecting from the beginning, and after open()", (t) => {
  const source = new Hub(t).open({ user: "alice" });
  assert.equal(source.state, "connecting");
  source.close();
  source.open();
  assert.deepEqual(source.states, ["closed", "connecting"]);
});

test("a state has its details", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const details = [];
  source.addEventListener("rowcast.state", ({ state, reason, status, error, retryAt }) => details.push({ state, reason, status, error: error?.message, in: retryAt - Date.now() }));
  assert.equal(source.state, "connecting");
  (await hub.request(1)).answer(502);
  await hub.wait();
  (await hub.request(2)).fail();
  await settle();
  assert.deepEqual(details, [
    { state: "retrying", reason: "status", status: 502, error: undefined, in: 1000 },
    { state: "retrying", reason: "network", status: undefined, error: "failed to fetch", in: 1500 },
  ]);
});

test("close ends the stream, also in a listener", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  source.addEventListener("last", () => source.close());
  const request = (await hub.request(1)).greet().row(1).send("event: last\ndata: 2\nid: 2-c\n\ndata: 3\nid: 3-c\n\n");
  await hub.pass(700);
  assert.ok(request.aborted);
  assert.deepEqual(source.heard, [["message", 1], ["last", 2]]);
  assert.deepEqual(source.states, ["open", "closed"]);
  await hub.request(1);
  source.open();
  assert.equal((await hub.request(2)).cursor, "2-c");
});

test("a listener may close a source that has just been opened again", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  (await hub.request(1)).answer(401);
  await settle();
  source.addEventListener("rowcast.state", ({ state }) => state === "connecting" && source.close());
  source.open();
  await hub.pass(700);
  await hub.request(1);
  assert.deepEqual(source.states, ["signed-out 401", "connecting", "closed"]);
});

test("close works while the source is connecting, retrying or open", async (t) => {
  for (const [name, answer] of Object.entries({ connecting: () => {}, retrying: (r) => r.fail(), open: (r) => r.greet() })) {
    await t.test(name, async (t) => {
      const hub = new Hub(t);
      const source = hub.open();
      source.addEventListener("rowcast.state", ({ state }) => state !== "closed" && source.close());
      answer(await hub.request(1));
      await settle();
      source.close();
      await hub.pass(700);
      await hub.request(1);
      assert.equal(source.state, "closed");
      assert.equal(source.states.filter((state) => state === "closed").length, 1);
    });
  }
});

test("a slow listener delays nothing, and a read is always outstanding", async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const request = await hub.request(1);
  let reading = 0;
  const original = ReadableStreamDefaultReader.prototype.read;
  t.mock.method(ReadableStreamDefaultReader.prototype, "read", function () {
    reading++;
    return original.call(this).finally(() => reading--);
  });
  const during = [];
  source.addEventListener("message", () => (during.push(reading), new Promise(() => {})));
  request.greet().row(1);
  await settle();
  request.row(2).row(3);
  await settle();
  assert.deepEqual(source.heard.map(([, data]) => data), [1, 2, 3]);
  assert.deepEqual(during, [1, 1, 1]);
});

test("the cursor is sent without a preflight where possible", async (t) => {
  for (const [name, page, options, header] of [
    ["in Node", undefined, {}, true],
    ["to the page's origin", "http://hub.example", {}, true],
    ["to another origin", "http://app.example", {}, false],
    ["to another origin with a token", "http://app.example", { token: () => "secret" }, true],
    ["from a sandboxed frame", "null", {}, false],
  ]) {
    await t.test(name, async (t) => {
      const hub = new Hub(t);
      if (page) globalThis.origin = page;
      t.after(() => delete globalThis.origin);
      hub.open({ lastEventId: "5-c", ...options }, "http://hub.example/events?topic=a");
      const { headers, url, init } = await hub.request(1);
      assert.deepEqual([headers["Last-Event-ID"], url.search], header ? ["5-c", "?topic=a"] : [undefined, "?topic=a&last_event_id=5-c"]);
      assert.equal(headers.Authorization, options.token && "Bearer secret");
      assert.equal(init.credentials, "same-origin");
    });
  }
});

test("a cursor that a header cannot have is sent in the URL", async (t) => {
  const hub = new Hub(t);
  hub.open({ lastEventId: "\u0141\n" });
  const { headers, url } = await hub.request(1);
  assert.deepEqual([headers["Last-Event-ID"], url.searchParams.get("last_event_id")], [undefined, "\u0141\n"]);
});

test("a cursor that is too long for a server or a proxy is replaced, and the stream begins with a reset", async (t) => {
  const long = `1-${"A".repeat(1_000)}`;
  for (const status of [400, 414, 431]) {
    await t.test(`status ${status}`, async (t) => {
      const hub = new Hub(t);
      const source = hub.open({ lastEventId: long, user: "alice" });
      const resets = [];
      source.onreset = ({ data }) => resets.push(data.reason);
      assert.equal((await hub.request(1)).cursor, long);
      hub.requests[0].answer(status);
      assert.equal((await hub.request(2)).cursor, "refused");
      assert.equal(source.lastEventId, long);
      const reset = (request, cursor) => request.greet(cursor).send(`event: rowcast.reset\ndata: {"reason":"malformed"}\nid: ${cursor}\n\n`);
      reset(hub.requests[1], "2" + long).end(); // the next cursor is too long, too
      await hub.wait();
      (await hub.request(3)).answer(status);
      assert.ok((await hub.wait()) >= 10);
      const request = reset(await hub.request(4), "3-c").row(4);
      await settle();
      assert.deepEqual([hub.requests[2].cursor, request.cursor], ["2" + long, "refused"]);
      assert.deepEqual([resets, source.heard, source.lastEventId], [["malformed", "malformed"], [["message", 4]], "4-c"]);
      request.end();
      await hub.wait();
      assert.equal((await hub.request(5)).cursor, "4-c");
    });
  }
  await t.test("a long cursor that was not the reason is kept", async (t) => {
    const hub = new Hub(t);
    hub.open({ lastEventId: long });
    (await hub.request(1)).answer(400);
    (await hub.request(2)).answer(400);
    assert.ok((await hub.wait()) >= 10);
    assert.deepEqual([hub.requests[1].cursor, (await hub.request(3)).cursor], ["refused", long]);
  });
  await t.test("a short cursor is kept", async (t) => {
    const hub = new Hub(t);
    hub.open({ lastEventId: "1-c" });
    (await hub.request(1)).answer(400);
    assert.ok((await hub.wait()) >= 10);
    assert.equal((await hub.request(2)).cursor, "1-c");
  });
});

test("a URL is relative to the page or the worker", async (t) => {
  const hub = new Hub(t);
  assert.throws(() => hub.open({}, "/events"), TypeError);
  globalThis.location = new URL("http://app.example/a/worker.js");
  t.after(() => delete globalThis.location);
  assert.equal(hub.open({}, "events").url, "http://app.example/a/events");
  globalThis.document = { baseURI: "http://app.example/base/" };
  t.after(() => delete globalThis.document);
  assert.equal(hub.open({ withCredentials: true }, "events").url, "http://app.example/base/events");
  assert.equal((await hub.request(2)).init.credentials, "include");
});

test("the cursor is kept over a reload", async (t) => {
  const stored = {};
  const define = (value) => Object.defineProperty(globalThis, "sessionStorage", { configurable: true, ...value });
  t.after(() => delete globalThis.sessionStorage);
  define({ value: { getItem: (key) => stored[key] ?? null, setItem: (key, value) => (stored[key] = value) } });
  const hub = new Hub(t);
  const source = hub.open({ persist: "alice" });
  (await hub.request(1)).greet().row(2);
  await settle();
  assert.deepEqual(stored, { alice: "2-c" });
  source.close();
  const closing = hub.open({ persist: "alice" });
  assert.equal((await hub.request(2)).cursor, "2-c");
  closing.onmessage = () => closing.close();
  hub.requests[1].greet("2-c").send("data: 3\nid: 3-c\n\ndata: 4\nid: 4-c\n\n");
  await settle();
  assert.deepEqual([closing.heard, stored], [[["message", 3]], { alice: "3-c" }]);
  hub.open({ persist: "bob" });
  assert.equal((await hub.request(3)).cursor, "");
  hub.open({ persist: "alice", lastEventId: "9-c" });
  assert.equal((await hub.request(4)).cursor, "9-c");
  define({ get: () => { throw new Error("denied"); } });
  const denied = hub.open({ persist: "alice" });
  (await hub.request(5)).greet().row(2);
  await settle();
  assert.deepEqual(denied.heard, [["message", 2]]);
});

test("a date in Retry-After is compared with the header Date, not with the clock of the computer", async (t) => {
  const YEAR = 365 * 24 * 3600 * 1000;
  const hub = new Hub(t);
  hub.ahead = -YEAR;
  hub.open();
  const date = (after) => new Date(Date.now() + YEAR + after).toUTCString();
  (await hub.request(1)).answer(503, { "Retry-After": date(20_000), Date: date(0) });
  const waited = await hub.wait();
  assert.ok(waited > 15 && waited < 31, `waited ${waited} s, want more than 15 s and less than 31 s`);
});
