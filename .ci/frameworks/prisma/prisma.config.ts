// An app of Prisma, to test its migrations and shadow databases. Prisma downloads its program for migrations from its
// own server. The test downloads nothing, so it uses the same engine in WebAssembly, which is in the npm package of
// Prisma 6.19 and runs with "engine: js".
import { randomUUID } from "node:crypto";

import { PrismaPg } from "@prisma/adapter-pg";
import { defineConfig } from "prisma/config";

// The adapter is not made for migrations. It does not know the types "char" and name, splits a script at each
// semicolon, and drops the shadow database before it has closed its connections. The functions below replace these
// parts of the adapter.
async function connect(database: string) {
  const { PGHOST: host, PGPORT: port, PGUSER: user } = process.env;
  const adapter: any = await new PrismaPg({ host, port: Number(port), user, database, allowExitOnIdle: true }).connect();
  const pool = adapter.underlyingDriver();
  const query = pool.query.bind(pool);
  const types: Record<number, number> = { 18: 1042, 19: 25 };
  pool.query = async (...parameters: any[]) => {
    const result = await query(...parameters);
    for (const field of result.fields ?? []) field.dataTypeID = types[field.dataTypeID] ?? field.dataTypeID;
    return result;
  };
  adapter.executeScript = async (script: string) => void (await query(script));
  adapter.dispose = () => pool.end();
  return adapter;
}

async function connectToShadowDb() {
  const main = await connect(process.env.PGDATABASE!);
  const name = `shadow_${randomUUID()}`;
  await main.executeScript(`CREATE DATABASE "${name}"`);
  const shadow = await connect(name);
  const close = shadow.dispose;
  shadow.dispose = async () => {
    await close();
    await main.executeScript(`DROP DATABASE "${name}"`);
    await main.dispose();
  };
  return shadow;
}

export default defineConfig({
  experimental: { adapter: true },
  engine: "js",
  schema: "schema.prisma",
  migrations: { path: "migrations" },
  adapter: async () => ({
    provider: "postgres",
    adapterName: "@prisma/adapter-pg",
    connect: () => connect(process.env.PGDATABASE!),
    connectToShadowDb,
  }),
});
