import { PrismaPg } from "@prisma/adapter-pg";
import { check } from "./check.js";
import { type Prisma, PrismaClient } from "./prisma/index.js";

const prisma = new PrismaClient({ adapter: new PrismaPg({}) });

// README: insert

await check<Prisma.TransactionClient>({
  insert: (recipient, data, tx) => (tx ?? prisma).notification.create({ data: { recipient, data } }),
  insertWithKey: async (recipient, data) => (await prisma.notification.create({ data: { recipient, data } })).id,
  insertMany: (recipient, data) => prisma.notification.createMany({ data: data.map(d => ({ recipient, data: d })) }),
  transaction: work => prisma.$transaction(work),
  savepoint: async (tx, work) => {
    await tx.$executeRaw`SAVEPOINT s`;
    try {
      await work(tx);
    } catch (error) {
      await tx.$executeRaw`ROLLBACK TO SAVEPOINT s`;
      throw error;
    }
  },
  find: recipient => prisma.notification.findMany({ where: { recipient }, orderBy: { id: "asc" } }),
  close: () => prisma.$disconnect(),
});
