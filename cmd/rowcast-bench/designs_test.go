package main_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// Each row arrives exactly once with each of the other designs. A design whose program is missing or fails is left out,
// with the reason.
func TestOtherDesigns(t *testing.T) {
	t.Parallel()
	dir, dsn := installDesigns(t), dbtest.Cluster(t).DSN("postgres")
	const result = `\| ([\d.,]+ / [\d.,]+|only [\d,.]+ per second); [\d,.]+ \+ [\d,.]+ +`
	if out, _ := runBench(t, "--only", "designs", "--designs", dir, "--database-url", dsn); !regexp.MustCompile(
		`\| rowcast +\| naive +\| Node, pg +\| Go, lib/pq +\| outbox, Redis +\| nchan +\|\n.*\n\| 300 +` + strings.Repeat(result, 6)).MatchString(out) {
		t.Errorf("no results of six designs at 300 rows per second:\n%s", out)
	}
	for _, name := range []string{"listen.mjs", "redis.mjs", "nchan.mjs"} {
		if err := os.WriteFile(filepath.Join(dir, "node", name), []byte(`console.error("no memory"); process.exit(1)`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "go", "design")); err != nil {
		t.Fatal(err)
	}
	out, _ := runBench(t, "--only", "curve,designs", "--designs", dir, "--database-url", dsn)
	for _, want := range []string{
		`\| always polling +\| naive +\|\n`, `\| rowcast +\| naive +\|\n`, "Node, pg failed: .*no memory", "outbox, Redis failed: ", "nchan failed: ", `Go, lib/pq was left out: .*/go/design is missing; .*/README\.md says how to install it`,
	} {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("got\n%s\nwant a match of %q", out, want)
		}
	}
}

// installDesigns returns a copy of the directory designs, with the Node modules and the compiled Go program.
func installDesigns(t *testing.T) (dir string) {
	t.Helper()
	dbtest.Program(t, "redis-server", "redis-server")
	dbtest.Program(t, "nginx", "nginx")
	if found, _ := filepath.Glob("/usr/*/nginx/modules/ngx_nchan_module.so"); len(found) == 0 {
		dbtest.Missing(t, "nginx has no module nchan: apt install libnginx-mod-nchan (Debian)")
	}
	modules := dbtest.NodeModules(t, "cmd/rowcast-bench/designs/node", "designs", "redis")
	dir = dbtest.Home(t)
	if err := os.CopyFS(dir, os.DirFS("designs")); err != nil {
		t.Fatal(err)
	}
	installed := filepath.Join(dir, "node", "node_modules")
	if err := os.RemoveAll(installed); err != nil { // a developer may have installed them
		t.Fatal(err)
	}
	if err := os.Symlink(modules, installed); err != nil {
		t.Fatal(err)
	}
	dbtest.GoBuild(t, "cmd/rowcast-bench/designs/go", filepath.Join(dir, "go"), filepath.Join(dir, "go"))
	return dir
}

// When the benchmark is interrupted, the program of a design can still end the programs that it has started.
func TestInterruptedDesign(t *testing.T) {
	t.Parallel()
	dbtest.Program(t, "nodejs", "node")
	dir := dbtest.Home(t)
	if err := os.MkdirAll(filepath.Join(dir, "node", "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	began, ended := filepath.Join(dir, "began"), filepath.Join(dir, "ended")
	program := `import { writeFileSync } from "node:fs";
		writeFileSync("` + began + `", "");
		process.stdin.resume().on("end", () => writeFileSync("` + ended + `", ""));`
	if err := os.WriteFile(filepath.Join(dir, "node", "listen.mjs"), []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := command(t, dbtest.Home(t), "--quick", "--only", "designs", "--designs", dir, "--database-url", dbtest.Cluster(t).DSN("postgres"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(began); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the design has not begun within %v", waitLimit)
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := os.Stat(ended); err != nil {
		t.Errorf("the program of the design did not handle the end of its input: %v", err)
	}
}
