import { type ControlledTransaction, Kysely, PostgresDialect } from "kysely";
import pg from "pg";
import { check } from "./check.js";

const db = new Kysely<Database>({ dialect: new PostgresDialect({ pool: new pg.Pool() }) });

// README: model

// README: insert

const row = (recipient: string, data: object) => ({ recipient, data: JSON.stringify(data) });
await check<ControlledTransaction<Database>>({
  insert: (recipient, data, tx) => (tx ?? db).insertInto("rowcast.notifications").values(row(recipient, data)).execute(),
  insertWithKey: async (recipient, data) =>
    (await db.insertInto("rowcast.notifications").values(row(recipient, data)).returning("id").executeTakeFirstOrThrow()).id,
  insertMany: (recipient, data) => db.insertInto("rowcast.notifications").values(data.map(d => row(recipient, d))).execute(),
  transaction: async work => {
    const tx = await db.startTransaction().execute();
    try {
      await work(tx);
      await tx.commit().execute();
    } catch (error) {
      await tx.rollback().execute();
      throw error;
    }
  },
  savepoint: async (tx, work) => {
    const nested = await tx.savepoint("s").execute();
    try {
      await work(tx);
    } catch (error) {
      await nested.rollbackToSavepoint("s").execute();
      throw error;
    }
  },
  find: recipient => db.selectFrom("rowcast.notifications").selectAll().where("recipient", "=", recipient).orderBy("id").execute(),
  close: () => db.destroy(),
});
