import { Sequelize, type Transaction } from "sequelize";
import { check } from "./check.js";

const { PGHOST, PGPORT, PGDATABASE, PGUSER } = process.env;
const sequelize = new Sequelize(PGDATABASE!, PGUSER!, "", { dialect: "postgres", host: PGHOST, port: Number(PGPORT), logging: false });

// README: model

// README: insert

await check<Transaction>({
  insert: (recipient, data, transaction) => Notification.create({ recipient, data }, { transaction }),
  insertWithKey: async (recipient, data) => (await Notification.create({ recipient, data })).get("id"),
  insertMany: (recipient, data) => Notification.bulkCreate(data.map(d => ({ recipient, data: d }))),
  insertManyWithoutId: (recipient, data) =>
    Notification.bulkCreate(data.map(d => ({ recipient, data: d })), { fields: ["recipient", "event", "data"] }),
  transaction: work => sequelize.transaction(work),
  savepoint: (transaction, work) => sequelize.transaction({ transaction }, work),
  find: recipient => Notification.findAll({ where: { recipient }, order: ["id"], raw: true }) as never,
  close: () => sequelize.close(),
});
