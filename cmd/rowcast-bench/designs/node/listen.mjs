// A trigger sends each row in the payload of a NOTIFY, and this hub writes the row to the streams of the recipient.
import pg from "pg";
import { answer, send, serve } from "./hub.mjs";

const client = new pg.Client(process.env.DATABASE_URL);
await client.connect();
client.on("notification", ({ payload }) => {
  const row = JSON.parse(payload);
  send(row.recipient, row);
});
await client.query("LISTEN naive");
answer(await serve());
