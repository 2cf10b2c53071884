import assert from "node:assert/strict";
import { test } from "node:test";
import { Hub, settle } from "./hub.mjs";

/** Returns the events and the last cursor of a source whose stream arrives in chunks. */
async function hear(t, chunks, last = (r) => r.end()) {
  const hub = new Hub(t);
  const source = hub.open();
  const heard = [];
  source.onevent = ({ name, data, lastEventId, id, time }) => heard.push([name, data, lastEventId, id, time?.getTime()]);
  const request = await hub.request(1);
  request.answer(200, { "Content-Type": "text/event-stream; charset=utf-8" });
  for (const chunk of chunks) request.send(chunk);
  last(request);
  await settle();
  source.close();
  t.mock.timers.reset();
  t.mock.restoreAll();
  return { heard, cursor: source.lastEventId };
}

const corpus = {
  "a row": ["event: notify\ndata: {\"a\": 1}\ntime: 1767225600000\nid: 7-c\n\n", [["notify", { a: 1 }, "7-c", 7, 1767225600000]], "7-c"],
  "without a name": ["data: 1\n\n", [["message", 1, "", undefined, undefined]], ""],
  "a message keeps the cursor and has no id": ["data: 1\nid: 7-c\n\ndata: 2\n\n", [["message", 1, "7-c", 7, undefined], ["message", 2, "7-c", undefined, undefined]], "7-c"],
  "several lines of data": ["data: [1,\ndata:2]\n\n", [["message", [1, 2], "", undefined, undefined]], ""],
  "data that is not JSON": ["data: hello: you\n\n", [["message", "hello: you", "", undefined, undefined]], ""],
  "empty data": ["data\n\ndata:\n\n", [["message", "", "", undefined, undefined], ["message", "", "", undefined, undefined]], ""],
  "only the first space is removed": ["data:  x \n\n", [["message", " x ", "", undefined, undefined]], ""],
  "an id without data": ["id: 8-c\n\nevent: x\n\n", [], "8-c"],
  "an id with NUL is ignored": ["id: 8-\0\ndata: 1\n\n", [["message", 1, "", undefined, undefined]], ""],
  "an empty id": ["id: 8-c\n\nid\ndata: 1\n\n", [["message", 1, "", undefined, undefined]], ""],
  "comments and unknown fields": [":x\nfoo: bar\nDATA: 2\n__proto__: 3\nconstructor: 4\ndata: 1\n\n", [["message", 1, "", undefined, undefined]], ""],
  "a time that is not a number": ["data: 1\ntime: 5s\n\n", [["message", 1, "", undefined, undefined]], ""],
  "a byte order mark": ["\ufeffdata: 1\n\n", [["message", 1, "", undefined, undefined]], ""],
  "a byte order mark elsewhere": ["data: 1\n\n\ufeffdata: 2\n\n", [["message", 1, "", undefined, undefined]], ""],
  "characters of several bytes": ["data: \"ä中😀\"\n\n", [["message", "ä中😀", "", undefined, undefined]], ""],
  "an event that is cut off": ["data: 1\nid: 7-c\n\ndata: 2\nid: 8-c\n", [["message", 1, "7-c", 7, undefined]], "7-c"],
  "a row that is too large": ["event: rowcast.toolarge\ndata: {}\nid: 7-c\n\n", [["rowcast.toolarge", {}, "7-c", 7, undefined]], "7-c"],
};

for (const [name, [text, want, cursor]] of Object.entries(corpus)) {
  for (const end of ["\n", "\r", "\r\n"]) {
    test(`${name}, ${JSON.stringify(end)}, whole and byte by byte`, async (t) => {
      const bytes = new TextEncoder().encode(text.replaceAll("\n", end));
      assert.deepEqual(await hear(t, [bytes]), { heard: want, cursor });
      assert.deepEqual(await hear(t, [...bytes].map((byte) => Uint8Array.of(byte))), { heard: want, cursor });
    });
  }
}

test("random streams in random chunks", async (t) => {
  let seed = 1;
  const below = (n) => (seed = (seed * 48271) % 0x7fffffff) % n;
  for (let round = 0; round < 100; round++) {
    let text = "";
    const want = [];
    for (let id = 1; id <= 20; id++) {
      const end = ["\n", "\r", "\r\n"][below(3)];
      const lines = Array.from({ length: 1 + below(3) }, () => "x".repeat(below(5)) + ["", "é", "😀", ":", " "][below(5)]);
      const fields = [...lines.map((line) => `data: ${line}`), `id: ${id}-c`, ...(below(2) ? [":comment"] : [])];
      text += fields.map((field) => field + end).join("") + end;
      want.push(lines.join("\n"));
    }
    const bytes = new TextEncoder().encode(text);
    const chunks = [];
    for (let at = 0; at < bytes.length; ) chunks.push(bytes.slice(at, (at += 1 + below(40))));
    const { heard, cursor } = await hear(t, chunks);
    assert.deepEqual(heard.map(([, data, , id]) => [id, data]), want.map((data, i) => [i + 1, parse(data)]), JSON.stringify(text));
    assert.equal(cursor, "20-c");
  }
});

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

test("an event of 64 MiB takes linear time", { timeout: 60_000 }, async (t) => {
  const chunk = new Uint8Array(1 << 14).fill("x".charCodeAt(0));
  const read = async (mib) => {
    const begin = performance.now();
    const { heard } = await hear(t, ["data: ", ...Array(mib * 64).fill(chunk), "\n\n"]);
    assert.equal(heard[0][1].length, mib << 20);
    return performance.now() - begin;
  };
  await read(8);
  const [few, many] = [await read(8), await read(64)];
  assert.ok(many < 8 * 4 * few + 1_000, `8 MiB took ${few} ms, and 64 MiB took ${many} ms, want less than 32 times as long plus 1,000 ms`);
});

test("an event that is longer than the limit ends the stream", { timeout: 60_000 }, async (t) => {
  const hub = new Hub(t);
  const source = hub.open();
  const request = (await hub.request(1)).greet();
  const chunk = new Uint8Array(1 << 24).fill("x".charCodeAt(0));
  request.send("data: ");
  for (let i = 0; i < 9 && !request.aborted; i++) {
    request.send(chunk);
    await settle();
  }
  assert.ok(request.aborted);
  assert.deepEqual(source.states, ["open", "retrying length"]);
  assert.ok((await hub.wait()) >= 10);
});
