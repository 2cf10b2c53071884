// Package web_test tests the browser client without a browser.
package web_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream"
)

// TestScript runs the tests in the directory test, which need no browser.
func TestScript(t *testing.T) {
	t.Parallel()
	tests, err := filepath.Glob("test/*.test.mjs")
	if err != nil || len(tests) == 0 {
		t.Fatalf("found %d tests (%v), want at least 1", len(tests), err)
	}
	for _, test := range tests {
		t.Run(filepath.Base(test), func(t *testing.T) {
			t.Parallel()
			runNode(t, ".", test)
		})
	}
}

// The compiler accepts test/types.ts and test/types_inbox.ts, which compare the modules in src with the .d.ts files. It accepts
// test/types_node.ts without the types of browsers.
func TestScriptTypes(t *testing.T) {
	t.Parallel()
	modules := dbtest.NodeModules(t, ".ci/clients/npm", "clients-npm", "typescript")
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "src"), os.DirFS("src")); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{
		"rowcast.d.ts": "rowcast.d.ts", "rowcast-inbox.d.ts": "rowcast-inbox.d.ts", "rowcast-inbox-store.d.ts": "rowcast-inbox-store.d.ts",
		"package.json": "package.json", "test/types.ts": "types.ts", "test/types_inbox.ts": "types_inbox.ts",
		"test/types_node.ts": "types_node.ts",
	} {
		text, err := os.ReadFile(filepath.FromSlash(from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const browser = `{"compilerOptions": {"noEmit": true, "allowJs": true, "checkJs": true, "strictNullChecks": false, "noImplicitAny": false,
		"target": "es2022", "module": "nodenext", "lib": ["es2023", "dom", "dom.iterable"], "types": []}, "files": ["types.ts", "types_inbox.ts"]}`
	node := fmt.Sprintf(`{"compilerOptions": {"noEmit": true, "strict": true, "target": "es2022", "module": "nodenext", "lib": ["es2023"],
		"typeRoots": [%q], "types": ["node"]}, "files": ["types_node.ts"]}`, filepath.ToSlash(filepath.Join(modules, "@types")))
	for name, options := range map[string]string{"browser.json": browser, "node.json": node} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(options), 0o600); err != nil {
			t.Fatal(err)
		}
		runNode(t, dir, filepath.Join(modules, "typescript", "bin", "tsc"), "-p", name)
	}
}

// Each script is smaller than a limit when it is compressed with gzip.
func TestScriptsAreSmall(t *testing.T) {
	t.Parallel()
	for name, script := range map[string]struct {
		text []byte
		max  int
	}{
		"rowcast.js":             {stream.Script, 8 << 10},
		"rowcast-inbox-store.js": {stream.InboxStoreScript, 7000},
		"rowcast-inbox.js":       {stream.InboxScript, 10700},
	} {
		var compressed bytes.Buffer
		w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(script.text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := compressed.Len(); got > script.max {
			t.Errorf("%s has %d bytes when compressed, want at most %d", name, got, script.max)
		}
	}
}

// The module with the element can be imported in Node, which has no elements.
func TestElementInNode(t *testing.T) {
	t.Parallel()
	runNode(t, ".", "--input-type=module", "--eval", `import { RowcastInbox } from "./rowcast-inbox.js"; if (typeof RowcastInbox !== "function") throw new Error("no RowcastInbox")`)
}

// Tools that ignore the field exports, such as Parcel without its option packageExports, find the client.
func TestScriptPackageMain(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("package.json")
	if err != nil {
		t.Fatal(err)
	}
	var fields struct {
		Main    string
		Exports map[string]struct{ Default string }
	}
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	if want := fields.Exports["."].Default; want == "" || fields.Main != want {
		t.Errorf("the field main of package.json is %q, want %q as in exports", fields.Main, want)
	}
}

// The npm package has the three scripts, their types, README.md and package.json, and nothing else.
func TestScriptPackage(t *testing.T) {
	t.Parallel()
	npm := dbtest.Program(t, "npm", "npm")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	pack := exec.CommandContext(ctx, npm, "pack", "--dry-run", "--json", "--offline", "--cache", t.TempDir())
	out, err := pack.Output()
	if err != nil {
		t.Fatalf("npm pack: %v\n%s", err, out)
	}
	var packages []struct{ Files []struct{ Path string } }
	if err := json.Unmarshal(out, &packages); err != nil || len(packages) != 1 {
		t.Fatalf("npm pack printed %s (%v), want an array with one package", out, err)
	}
	var got []string
	for _, file := range packages[0].Files {
		got = append(got, file.Path)
	}
	slices.Sort(got)
	if want := []string{"README.md", "package.json", "rowcast-inbox-store.d.ts", "rowcast-inbox-store.js", "rowcast-inbox.d.ts", "rowcast-inbox.js", "rowcast.d.ts", "rowcast.js"}; !slices.Equal(got, want) {
		t.Errorf("the package has the files %q, want %q", got, want)
	}
}

// runNode runs Node in a directory. The limit is long, because the random tests take minutes on a busy machine.
func runNode(t *testing.T, dir string, args ...string) {
	t.Helper()
	const limit = 8 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	node := exec.CommandContext(ctx, dbtest.Node(t), args...)
	node.Dir = dir
	out, err := node.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		t.Errorf("node %q has not ended within %v\n%s", args, limit, out)
	case err != nil:
		t.Errorf("node %q: %v\n%s", args, err, out)
	}
}
