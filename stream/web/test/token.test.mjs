import assert from "node:assert/strict";
import { test } from "node:test";
import { Hub, page, settle } from "./hub.mjs";

/** Returns a token callback, and the list of the reasons with which it was called. */
function tokens(result = (n) => `token-${n}`) {
  const whys = [];
  const token = async (why) => result(whys.push(why));
  return { whys, token };
}

const bye = (reason, expires) => `event: rowcast.bye\ndata: {"reason":"${reason}","expires_in":${expires}}\n\n`;

test("a token is asked for once and used for each stream", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens();
  hub.open({ token });
  for (let n = 1; n <= 3; n++) {
    const request = await hub.request(n);
    assert.equal(request.headers.Authorization, "Bearer token-1");
    request.answer(503);
    await hub.wait();
  }
  assert.deepEqual(whys, ["open"]);
});

test("a token is used again after the page was frozen", async (t) => {
  const dispatch = page(t);
  const hub = new Hub(t);
  const { whys, token } = tokens();
  hub.open({ token });
  for (let n = 1; n <= 25; n++) {
    assert.equal((await hub.request(n)).greet().headers.Authorization, "Bearer token-1");
    await settle();
    for (const type of ["freeze", "resume"]) dispatch(type);
  }
  assert.deepEqual(whys, ["open"]);
});

test("a token is not used again after the page was in the back/forward cache", async (t) => {
  const dispatch = page(t);
  const hub = new Hub(t);
  let late;
  const { whys, token } = tokens((n) => (n === 2 ? new Promise((done) => (late = done)) : `token-${n}`));
  hub.open({ token });
  const first = (await hub.request(1)).greet();
  await settle();
  first.send(bye("expired", 30)); // the new token comes after the page was in the cache
  await settle();
  dispatch("pagehide", { persisted: true });
  dispatch("pageshow", { persisted: true });
  const second = (await hub.request(2)).greet();
  assert.equal(second.headers.Authorization, "Bearer token-3");
  late("token-2");
  await settle();
  second.end();
  await hub.wait();
  assert.equal((await hub.request(3)).headers.Authorization, "Bearer token-3");
  assert.deepEqual(whys, ["open", "expired", "open"]);
});

test("a token is not used again after the hub has named another user", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens();
  const source = hub.open({ token, user: "bob" });
  (await hub.request(1)).greet(); // for alice
  await settle();
  assert.equal(source.state, "signed-out");
  source.open();
  assert.equal((await hub.request(2)).headers.Authorization, "Bearer token-2");
  assert.deepEqual(whys, ["open", "open"]);
});

test("a token is not used again after the stream of another tab was refused", async (t) => {
  let channel, lead;
  const { navigator, BroadcastChannel } = globalThis;
  const locks = { query: async () => ({}), request: (_name, _options, held) => new Promise(() => (lead = () => held({}))) };
  Object.defineProperty(globalThis, "navigator", { value: { locks }, configurable: true });
  globalThis.BroadcastChannel = /** @type {any} */ (class {
    constructor() { channel = this; }
    postMessage() {}
    close() {}
  });
  t.after(() => {
    Object.defineProperty(globalThis, "navigator", { value: navigator, configurable: true });
    globalThis.BroadcastChannel = BroadcastChannel;
  });
  const hub = new Hub(t);
  const { whys, token } = tokens();
  const source = hub.open({ token });
  const request = (await hub.request(1)).greet("1-0-5--e-a");
  await settle();
  ["open", "signed-out"].forEach((state, i) => channel.onmessage({ data: { t: "state", epoch: 1, n: i + 1, at: "1-0-5--e-a", status: { state }, heartbeat: 15_000 } }));
  assert.deepEqual([request.aborted, source.states], [true, ["open", "signed-out"]]);
  lead(); // the other tab was closed
  assert.equal((await hub.request(2)).headers.Authorization, "Bearer token-2");
  assert.deepEqual(whys, ["open", "open"]);
});

test("the callback runs after the constructor has returned", async (t) => {
  const hub = new Hub(t);
  const source = hub.open({ token: () => source.state });
  assert.equal((await hub.request(1)).headers.Authorization, "Bearer connecting");
});

test("a callback that returns nothing sends no header", async (t) => {
  const hub = new Hub(t);
  hub.open({ token: () => {} });
  assert.equal("Authorization" in (await hub.request(1)).headers, false);
});

test("before a token expires, a stream with a new one takes over", async (t) => {
  const hub = new Hub(t);
  let renew;
  const { whys, token } = tokens((n) => (n === 1 ? "first" : new Promise((done) => (renew = done))));
  const source = hub.open({ token });
  const old = (await hub.request(1)).greet().send(bye("expired", 30));
  await settle();
  old.row(2);
  await hub.request(1);
  renew("second");
  const request = await hub.request(2);
  assert.equal(request.headers.Authorization, "Bearer second");
  assert.equal(request.cursor, "2-c");
  assert.ok(old.aborted);
  request.greet("2-c").row(3);
  await settle();
  assert.deepEqual(source.heard, [["message", 2], ["message", 3]]);
  assert.deepEqual(source.states, ["open"]);
  assert.deepEqual(whys, ["open", "expired"]);
});

test("if the token is not renewed, the stream continues until the hub ends it", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens((n) => (n === 2 ? Promise.reject(new Error("on purpose")) : `token-${n}`));
  const source = hub.open({ token });
  const request = (await hub.request(1)).greet().send(bye("expired", 30));
  await hub.pass(10);
  request.row(2);
  await settle();
  assert.deepEqual(source.heard, [["message", 2]]);
  request.end();
  await hub.wait();
  (await hub.request(2)).answer(401);
  const next = await hub.request(3);
  assert.equal(next.headers.Authorization, "Bearer token-3");
  assert.deepEqual(whys, ["open", "expired", "refused"]);
});

test("rowcast.bye with another reason, or without a callback, changes nothing", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens();
  hub.open({ token });
  (await hub.request(1)).greet().send(bye("disconnected", 0) + bye("revoked", 0));
  hub.open();
  (await hub.request(2)).greet().send(bye("expired", 30));
  await hub.request(2);
  assert.deepEqual(whys, ["open"]);
});

test("after 401 the callback is asked once, and then the user is signed out", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens();
  const source = hub.open({ token });
  (await hub.request(1)).answer(401);
  (await hub.request(2)).answer(401);
  await hub.pass(700);
  await hub.request(2);
  assert.deepEqual(source.states, ["signed-out 401"]);
  source.open();
  assert.equal((await hub.request(3)).headers.Authorization, "Bearer token-3");
  assert.deepEqual(whys, ["open", "refused", "open"]);
});

test("after 401 a new token continues the stream", async (t) => {
  const hub = new Hub(t);
  const { token } = tokens();
  const source = hub.open({ token, lastEventId: "5-c" });
  (await hub.request(1)).answer(401);
  const request = (await hub.request(2)).greet();
  await settle();
  assert.equal(request.headers.Authorization, "Bearer token-2");
  assert.equal(request.cursor, "5-c");
  assert.deepEqual(source.states, ["open"]);
});

test("a failing callback is called again, at most 20 times in ten minutes", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens((n) => (n <= 40 ? Promise.reject(new Error(`failure ${n}`)) : "token"));
  const source = hub.open({ token });
  const errors = [];
  source.addEventListener("rowcast.state", ({ error }) => errors.push(error?.message));
  hub.random = 0;
  await hub.pass(590);
  assert.equal(whys.length, 20);
  assert.equal(errors[0], "failure 1");
  assert.ok(source.states.every((state) => state === "retrying token"), source.states);
  await hub.pass(590);
  assert.equal(whys.length, 40);
  const request = (await hub.wait(), await hub.request(1)).greet();
  await settle();
  assert.equal(source.state, "open");
  assert.equal(request.headers.Authorization, "Bearer token");
});

test("a result that is not a token is reported, and the callback is called again", async (t) => {
  const page = "<!doctype html>\n<title>Sign in</title>";
  for (const result of [page, "token\u20ac"]) {
    await t.test(result, async (t) => {
      const hub = new Hub(t);
      const { whys, token } = tokens((n) => (n === 1 ? result : "token"));
      const source = hub.open({ token });
      await hub.wait();
      assert.deepEqual([source.states, whys], [["retrying token"], ["open", "open"]]);
      assert.equal((await hub.request(1)).headers.Authorization, "Bearer token");
    });
  }
});

test("a callback that does not return fails after 30 s", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens((n) => (n === 1 ? new Promise(() => {}) : "token"));
  const source = hub.open({ token });
  await hub.pass(29);
  assert.deepEqual(source.states, []);
  await hub.pass(2);
  assert.deepEqual(source.states, ["retrying token"]);
  await hub.request(1);
  assert.deepEqual(whys, ["open", "open"]);
});

test("if a hub announces again and again that the token expires, the callback is called at most 20 times in ten minutes", async (t) => {
  const hub = new Hub(t);
  const { whys, token } = tokens();
  const source = hub.open({ token });
  for (let n = 1; n <= 25; n++) {
    const request = await hub.request(Math.min(n, 20));
    if (n <= 20) request.greet();
    request.send(bye("expired", 1));
    await settle();
  }
  assert.equal(whys.length, 20);
  assert.deepEqual(source.states, ["open"]);
});

test("after the clock was set back, the token callback is called as often as before", async (t) => {
  const hub = new Hub(t);
  let calls = 0;
  hub.open({ token: () => (calls++, Promise.reject(new Error("failure"))) });
  hub.random = 0;
  await hub.pass(590);
  assert.equal(calls, 20);
  hub.ahead = -24 * 3600 * 1000;
  await hub.pass(590);
  assert.equal(calls, 40);
});
