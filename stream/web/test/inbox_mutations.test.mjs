import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";

// Rules of the list. The test leaves out one rule at a time by replacing text in a module of src/inbox/store. One of the other tests of the
// list must then fail.
// Each entry is [rule, module, text, replacement].
const mutations = [
  ["an older change does not change a field", "rows.js", "if (version > row.versions[field])", "if (true)"],
  ["older counts do not replace newer ones", "rows.js", "version > this.counts.version", "true"],
  ["a deleted row does not come back with a page", "rows.js", " && !this.deleted.has(id)", ""],
  ["the ids of deleted rows are kept only while a page is requested", "index.js", "        rows.deleted = undefined;\n", ""],
  ["a page brings no row twice", "rows.js", "!this.find(id) && ", ""],
  ["read implies seen", "rows.js", "read: { seen: true, read: true }", "read: { read: true }"],
  ["a request that fails leaves no trace", "rows.js", "this.ops = this.ops.filter((other) => other !== op);", "if (answer) this.ops = this.ops.filter((other) => other !== op);"],
  ["the ids of an event for all rows are known only for its cursor", "rows.js", "up_to === this.cursor ? ", "true ? "],
  ["the list of another user is emptied", "rows.js", "[this.rows, this.waiting, this.ops, this.done, this.before] = [[], [], [], [], null];", ""],
  ["all seen rows of a second are sent together", "operations.js", "Math.min(this.#sawAt + SECOND - Date.now(), SECOND)", "0"],
  ["undo skips what has changed since", "operations.js", "rows.find(id)?.versions[field] === op.version", "true"],
  ["undo can be repeated after a failure", "operations.js", "op.undone = false;", ""],
  ["an undo waits until its change is saved", "operations.js", "|| !(await op.saved) ", ""],
  ["a change of all rows changes the rows up to the newest shown row", "operations.js", "all: this.#rows.cursor", "all: this.#rows.list.cursor"],
  ["rows wait while the list is held", "index.js", "rows.add(row, this.#hold)", "rows.add(row, false)"],
  ["a page that changes have overtaken is asked for again", "index.js", "!(page.version < rows.counts.version)", "true"],
  ["a page of an earlier list is dropped", "index.js", "if (list !== rows.list) return false;\n        if (!(", "if (!("],
  ["a reset loads the list again", "index.js", `on("rowcast.reset", () => this.load());`, ""],
  ["a row that returns is loaded", "index.js", `|| (action === "unarchive" && !ids.every((id) => rows.find(id)))`, ""],
  ["data of another form is ignored", "index.js", "if (!isChange(data)) return;", ""],
  ["sign-out empties the list", "index.js", "    this.#rows.clear();\n", ""],
  ["an answer for another user does not change rows", "rows.js", " || op.user !== this.user", ""],
  ["an answer for another user does not change counts", "operations.js", "answer && op.user === this.#rows.user", "answer"],
  ["an undo of another user changes nothing", "operations.js", "if (op.user !== rows.user) return answer.undone;", ""],
  ["a refusal for another user does not sign out", "index.js", "user === this.#rows.user && this.#signOut", "this.#signOut"],
  ["a row that arrives is counted", "rows.js", "unseen: Math.min(unseen + 1, MANY), unread: Math.min(unread + 1, MANY) }", "unseen, unread }"],
  ["changes are sent one after the other", "operations.js", "this.#sending.then(", "Promise.resolve().then("],
  ["an answer to an earlier load is dropped", "index.js", "if (run !== this.#run) return;\n      this.#replace", "this.#replace"],
  ["a failure of an earlier load is ignored", "index.js", "if (run === this.#run) this.#failed", "this.#failed"],
  ["the counts of a change are checked if a row follows", "index.js", "if (Math.min(this.#arrived, +row.time) - this.#counted < SETTLE) this.#recount();", ""],
  ["the counts of a change are checked if a row that it counts is late", "index.js", "Math.min(this.#arrived, +row.time)", "this.#arrived"],
  ["the counts of a change are checked if a row precedes it", "index.js", "if (this.#counted - this.#arrived < SETTLE) this.#recount();", ""],
  ["the counts are checked after a deletion", "index.js", "rows.remove(ids);\n      this.#recount();", "rows.remove(ids);"],
  ["counts that changes have overtaken are not taken", "index.js", "moves !== this.#moves || ", ""],
  ["counts are not taken before a change is answered", "index.js", " || this.#rows.ops.length) return", ") return"],
  ["counts that include a row that has not arrived are not taken", "index.js", " || this.#rows.misses(list)", ""],
  ["a failed request for counts is repeated", "index.js", "if (!list) return this.#recount(tries + 1);", "if (!list) return;"],
  ["the counts are not requested after close", "index.js", "if (run !== this.#run) return;\n      if (!list)", "if (!list)"],
  ["the counts are not requested after sign-out", "index.js", "clearTimeout(this.#timers.recount);\n    this.#source", "this.#source"],
  ["a list that is too old is loaded again", "index.js", "if (error.status === 409) this.load();", ""],
];

test("a test fails if a rule of the list is left out", { skip: process.env.MUTATIONS ? false : "takes minutes; set MUTATIONS=1" }, async (t) => {
  const here = fileURLToPath(new URL("../", import.meta.url));
  for (const [rule, module, text, replacement] of mutations) {
    await t.test(rule, async (t) => {
      const dir = mkdtempSync(join(tmpdir(), "inbox-"));
      t.after(() => rmSync(dir, { recursive: true }));
      for (const name of ["src", "test", "rowcast.js", "package.json"]) cpSync(join(here, name), join(dir, name), { recursive: true });
      writeFileSync(join(dir, "rowcast-inbox-store.js"), `export * from "./src/inbox/store/index.js";`);
      const file = join(dir, "src/inbox/store", module);
      const source = readFileSync(file, "utf8");
      assert.equal(source.split(text).length, 2, `the text must be in ${module} once`);
      writeFileSync(file, source.replace(text, () => replacement));
      for (const name of ["", "_pages", "_undo", "_counts", "_requests", "_random"].map((part) => `inbox${part}.test.mjs`)) {
        const failed = await new Promise((resolve, reject) => {
          const env = { PATH: process.env.PATH }; // without the variables of the test runner
          const args = ["--test", "--test-force-exit"]; // a broken list may leave timers
          execFile(process.execPath, [...args, join(dir, "test", name)], { timeout: 300_000, env }, (error, stdout) => (error?.killed ? reject(error) : resolve(error && stdout)));
        });
        if (failed !== null) return t.diagnostic(`${name}: ${/^✖ .*/m.exec(failed)?.[0] ?? "failed"}`);
      }
      assert.fail("no test failed without the rule");
    });
  }
});
