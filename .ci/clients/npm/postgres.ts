import postgres from "postgres";
import { check } from "./check.js";

const sql = postgres();

// README: insert

await check<postgres.TransactionSql>({
  insert: (recipient, data, tx) =>
    (tx ?? sql)`INSERT INTO rowcast.notifications (recipient, data) VALUES (${recipient}, ${sql.json(data as postgres.JSONValue)})`,
  insertWithKey: async (recipient, data) =>
    (await sql`INSERT INTO rowcast.notifications ${sql({ recipient, data: sql.json(data as postgres.JSONValue) } as never)} RETURNING *`)[0].id,
  insertMany: (recipient, data) =>
    sql`INSERT INTO rowcast.notifications ${sql(data.map(d => ({ recipient, data: sql.json(d as postgres.JSONValue) })) as never)}`,
  transaction: work => sql.begin(work),
  savepoint: (tx, work) => tx.savepoint(work),
  find: recipient => sql`SELECT * FROM rowcast.notifications WHERE recipient = ${recipient} ORDER BY id` as never,
  close: () => sql.end(),
});
