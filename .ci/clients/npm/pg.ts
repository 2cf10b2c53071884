import pg from "pg";
import { check } from "./check.js";

const pool = new pg.Pool();

// README: insert

const columns = "INSERT INTO rowcast.notifications (recipient, data)";
await check<pg.PoolClient>({
  insert: (recipient, data, tx) => (tx ?? pool).query(`${columns} VALUES ($1, $2)`, [recipient, JSON.stringify(data)]),
  insertWithKey: async (recipient, data) =>
    (await pool.query(`${columns} VALUES ($1, $2) RETURNING id`, [recipient, JSON.stringify(data)])).rows[0].id,
  insertMany: (recipient, data) =>
    pool.query(`${columns} SELECT $1, d FROM unnest($2::jsonb[]) d`, [recipient, data.map(d => JSON.stringify(d))]),
  transaction: async work => {
    const tx = await pool.connect();
    try {
      await tx.query("BEGIN");
      await work(tx);
      await tx.query("COMMIT");
    } catch (error) {
      await tx.query("ROLLBACK");
      throw error;
    } finally {
      tx.release();
    }
  },
  savepoint: async (tx, work) => {
    await tx.query("SAVEPOINT s");
    try {
      await work(tx);
    } catch (error) {
      await tx.query("ROLLBACK TO SAVEPOINT s");
      throw error;
    }
  },
  find: async recipient =>
    (await pool.query("SELECT * FROM rowcast.notifications WHERE recipient = $1 ORDER BY id", [recipient])).rows,
  close: () => pool.end(),
});
