// The rules of tabs.js, by random schedules of simulated tabs. SCHEDULES sets their number.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Tabs } from "../src/tabs.js";
import { mutations } from "./mutations.mjs";
import { play } from "./tabs_random.mjs";

const SCHEDULES = Number(process.env.SCHEDULES ?? 1000);
process.on("unhandledRejection", (error) => { throw error; });

test("each tab receives each event once and in causal order, or a reset", async () => {
  for (let seed = 0; seed < SCHEDULES; seed++) {
    const errors = await play(seed, { Tabs });
    assert.deepEqual(errors.slice(0, 3), [], `schedule ${seed}`);
  }
});

test("a schedule finds each rule that is left out", async (t) => {
  const path = new URL("../src/tabs.js", import.meta.url);
  // A data: URL can import no relative path.
  const source = readFileSync(path, "utf8").replace(/(?<=^import .* from )"(.*)"/gm, (_, name) => JSON.stringify(new URL(name, path).href));
  for (const [rule, ...edits] of mutations) {
    await t.test(rule, async () => {
      let changed = source;
      for (let i = 0; i < edits.length; i += 2) {
        assert.equal(changed.split(edits[i]).length, 2, `tabs.js has ${edits[i]} once`);
        changed = changed.replace(edits[i], () => edits[i + 1]);
      }
      const { Tabs: Mutant } = await import(`data:text/javascript,${encodeURIComponent(changed)}`);
      for (let seed = 0; seed < 1000; seed++) {
        if (await play(seed, { Tabs: Mutant }).then((errors) => errors.length > 0, () => true)) return;
      }
      assert.fail("no schedule found it");
    });
  }
});
