// The code that the programs of this directory share. The test puts code of sql/README.md in place of the comments in
// the programs that begin with README.
import assert from "node:assert/strict";

// A Client does what an app does, with the calls of one library. Tx is the library's object for a
// transaction.
export interface Client<Tx> {
  insert(recipient: string, data: object, tx?: Tx): Promise<unknown>;
  insertWithKey(recipient: string, data: object): Promise<unknown>; // returns the generated id
  insertMany(recipient: string, data: object[]): Promise<unknown>;
  insertManyWithoutId?(recipient: string, data: object[]): Promise<unknown>; // for PostgreSQL 13, if insertMany writes id
  transaction(work: (tx: Tx) => Promise<void>): Promise<unknown>;
  savepoint(tx: Tx, work: (tx: Tx) => Promise<void>): Promise<unknown>;
  find(recipient: string): Promise<{ id: unknown; event: string; data: unknown }[]>;
  close(): Promise<unknown>;
}

// check does with a client what apps do. The caller has inserted the row of sql/README.md before. If the program has
// only the rights of a sender, check only closes the client. The Go test examines the rows afterwards.
export async function check<Tx>(client: Client<Tx>): Promise<void> {
  if (process.env.ROLE === "app") {
    await inserts(client);
    await rollbacks(client);
    await savepoints(client);
  }
  await client.close();
}

async function inserts<Tx>(client: Client<Tx>): Promise<void> {
  await client.insert("*", { to: "everyone" });
  await insertMany(client, [{ n: 1 }, { n: 2 }, { n: 3 }]);
  const key = await client.insertWithKey("key", [1, "two", null]);

  const [found, ...others] = await client.find("key");
  assert.equal(String(found?.id), String(key), "the generated id");
  assert.deepEqual([found?.event, found?.data, others], ["message", [1, "two", null], []], "the row that was read back");
  const many = await client.find("many");
  assert.deepEqual(many.map(row => row.data), [{ n: 1 }, { n: 2 }, { n: 3 }], "the rows that were read back");
  assert.deepEqual((await client.find("alice")).map(row => [row.event, row.data]), [["notify", { msg: "hi" }]], "the row of README.md");
}

// insertMany inserts several rows. PostgreSQL 13 refuses this if the library writes DEFAULT for the id of each row.
async function insertMany<Tx>(client: Client<Tx>, data: object[]): Promise<void> {
  if (client.insertManyWithoutId && parseInt(process.env.SERVER_VERSION!) < 14) {
    assert.match(everything(await failure(client.insertMany("many", data))), /cannot insert into column \\*"id/, "the error of PostgreSQL 13");
    await client.insertManyWithoutId("many", data);
  } else {
    await client.insertMany("many", data);
  }
}

// A transaction that fails inserts nothing, and the app gets the error that made it fail.
async function rollbacks<Tx>(client: Client<Tx>): Promise<void> {
  const own = new Error("an error of the app");
  const caught = await failure(client.transaction(async tx => {
    await client.insert("rolled back", {}, tx);
    throw own;
  }));
  assert.equal(caught, own, "the error of a transaction in which the app throws");

  const refused = await failure(client.transaction(async tx => {
    await client.insert("rolled back", {}, tx);
    await client.insert("", {}, tx);
  }));
  assert.match(everything(refused), /recipient_is_1_to_256_bytes/, "the error of a transaction with a row that PostgreSQL refuses");
  assert.equal((await client.find("rolled back")).length, 0, "the number of rows of transactions that failed");
}

// An error in a savepoint undoes the work since the savepoint, and the transaction can continue.
async function savepoints<Tx>(client: Client<Tx>): Promise<void> {
  await client.transaction(async tx => {
    await client.insert("kept", { n: 1 }, tx);
    const refused = await failure(client.savepoint(tx, async nested => {
      await client.insert("undone", {}, nested);
      await client.insert("", {}, nested);
    }));
    assert.match(everything(refused), /recipient_is_1_to_256_bytes/, "the error of a savepoint");
    await client.savepoint(tx, async nested => { await client.insert("kept", { n: 2 }, nested); });
    await client.insert("kept", { n: 3 }, tx);
  });
}

async function failure(work: Promise<unknown>): Promise<unknown> {
  try {
    await work;
  } catch (error) {
    return error;
  }
  return assert.fail("there was no error");
}

// everything returns the messages and the fields of an error and its causes.
function everything(error: unknown): string {
  return error instanceof Error ? `${error.message} ${JSON.stringify(error)} ${everything(error.cause)}` : "";
}
