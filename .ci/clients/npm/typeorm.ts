import "reflect-metadata";
import { DataSource, type EntityManager } from "typeorm";
import { check } from "./check.js";

// README: model

const { PGHOST, PGPORT, PGDATABASE, PGUSER } = process.env;
// Only the owner can change the schema, so this fails if dropSchema or synchronize would change anything.
const dataSource = await new DataSource({
  type: "postgres", host: PGHOST, port: Number(PGPORT), database: PGDATABASE, username: PGUSER, entities: [Notification],
  dropSchema: true, synchronize: true,
}).initialize();

// README: insert

const repository = (tx?: EntityManager) => (tx ?? dataSource.manager).getRepository(Notification);
await check<EntityManager>({
  insert: (recipient, data, tx) => repository(tx).save({ recipient, data }),
  insertWithKey: async (recipient, data) => (await repository().save({ recipient, data })).id,
  insertMany: (recipient, data) => repository().save(data.map(d => ({ recipient, data: d }))),
  transaction: work => dataSource.transaction(work),
  savepoint: (tx, work) => tx.transaction(work),
  find: recipient => repository().find({ where: { recipient }, order: { id: "ASC" } }),
  close: () => dataSource.destroy(),
});
