// The table is an outbox: a relay deletes its rows and publishes them in Redis, and a hub subscribes to the channels of
// the users.
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";
import pg from "pg";
import { createClient } from "redis";
import { answer, fail, send, serve, start } from "./hub.mjs";

const dir = start("redis-server", (dir) => ["--port", "0", "--unixsocket", join(dir, "socket"), "--save", "", "--dir", dir, "--loglevel", "warning"]);
const options = { socket: { path: join(dir, "socket"), reconnectStrategy: 50 } };
const publisher = createClient(options).on("error", () => {}); // expected until Redis listens; the client tries again
const subscriber = createClient(options).on("error", () => {});
await Promise.all([publisher.connect(), subscriber.connect()]);
await subscriber.pSubscribe("user:*", (text, channel) => send(channel.slice("user:".length), JSON.parse(text)));

const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
let notified; // ends the present wait of the relay
client.on("notification", () => notified?.());
await client.query("LISTEN outbox");

const take = `WITH taken AS (DELETE FROM outbox.notifications WHERE id IN
  (SELECT id FROM outbox.notifications ORDER BY id LIMIT 500 FOR UPDATE SKIP LOCKED) RETURNING id, recipient, event, data)
  SELECT * FROM taken ORDER BY id`;

async function relay() {
  for (;;) {
    const wait = new Promise((resolve) => (notified = resolve));
    const { rows } = await client.query(take);
    await Promise.all(rows.map((row) => publisher.publish(`user:${row.recipient}`, JSON.stringify(row))));
    if (rows.length === 0) await Promise.race([wait, setTimeout(1_000, undefined, { ref: false })]);
  }
}

relay().catch(({ message }) => fail(message));
answer(await serve());
