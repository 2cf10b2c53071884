import { asc, eq } from "drizzle-orm";
import { drizzle } from "drizzle-orm/node-postgres";
import pg from "pg";
import { check } from "./check.js";

const pool = new pg.Pool();
const db = drizzle(pool);

// README: model

// README: insert

type Tx = Parameters<Parameters<typeof db.transaction>[0]>[0];
await check<Tx>({
  insert: (recipient, data, tx) => (tx ?? db).insert(notifications).values({ recipient, data }),
  insertWithKey: async (recipient, data) => (await db.insert(notifications).values({ recipient, data }).returning())[0]?.id,
  insertMany: (recipient, data) => db.insert(notifications).values(data.map(d => ({ recipient, data: d }))),
  insertManyWithoutId: (recipient, data) => db.insert(withoutId).values(data.map(d => ({ recipient, data: d }))),
  transaction: work => db.transaction(work),
  savepoint: (tx, work) => tx.transaction(work),
  find: recipient => db.select().from(notifications).where(eq(notifications.recipient, recipient)).orderBy(asc(notifications.id)),
  close: () => pool.end(),
});
