import connect, { type Knex } from "knex";
import { check } from "./check.js";

const knex = connect({ client: "pg", connection: {} });

// README: insert

const notifications = (tx?: Knex) => (tx ?? knex)("rowcast.notifications");
await check<Knex.Transaction>({
  insert: (recipient, data, tx) => notifications(tx).insert({ recipient, data: JSON.stringify(data) }),
  insertWithKey: async (recipient, data) => (await notifications().insert({ recipient, data: JSON.stringify(data) }).returning("id"))[0].id,
  insertMany: (recipient, data) => notifications().insert(data.map(d => ({ recipient, data: JSON.stringify(d) }))),
  transaction: work => knex.transaction(work),
  savepoint: (tx, work) => tx.transaction(work),
  find: recipient => notifications().where({ recipient }).orderBy("id"),
  close: () => knex.destroy(),
});
