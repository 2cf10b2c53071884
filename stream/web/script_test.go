// Package web_test tests the browser client without a browser.
package web_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
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

// The types in rowcast.d.ts are those of rowcast.js.
func TestScriptTypes(t *testing.T) {
	t.Parallel()
	modules := dbtest.NodeModules(t, ".ci/clients/npm", "clients-npm", "typescript")
	dir := t.TempDir()
	// A module rowcast.js beside rowcast.d.ts would have the declared types, so the script has another name.
	for from, to := range map[string]string{"rowcast.js": "script.js", "rowcast.d.ts": "rowcast.d.ts", "package.json": "package.json", "test/types.ts": "types.ts"} {
		text, err := os.ReadFile(filepath.FromSlash(from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	const options = `{"compilerOptions": {"noEmit": true, "allowJs": true, "checkJs": true, "strictNullChecks": false, "noImplicitAny": false,
		"target": "es2022", "module": "nodenext", "lib": ["es2023", "dom", "dom.iterable"], "types": []}, "files": ["types.ts"]}`
	if err := os.WriteFile(filepath.Join(dir, "tsconfig.json"), []byte(options), 0o600); err != nil {
		t.Fatal(err)
	}
	runNode(t, dir, filepath.Join(modules, "typescript", "bin", "tsc"), "-p", ".")
}

// maxScript is the limit of rowcast.js in bytes, compressed with gzip.
const maxScript = 5500

func TestScriptIsSmall(t *testing.T) {
	t.Parallel()
	var compressed bytes.Buffer
	w, err := gzip.NewWriterLevel(&compressed, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(stream.Script); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := compressed.Len(); got > maxScript {
		t.Errorf("rowcast.js has %d bytes when compressed, want at most %d", got, maxScript)
	}
}

// The npm package has the script, its types and its documentation, and nothing else.
func TestScriptPackage(t *testing.T) {
	t.Parallel()
	npm := dbtest.Program(t, "npm", "npm")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
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
	if want := []string{"README.md", "package.json", "rowcast.d.ts", "rowcast.js"}; !slices.Equal(got, want) {
		t.Errorf("the package has the files %q, want %q", got, want)
	}
}

// runNode runs Node in a directory, for at most two minutes.
func runNode(t *testing.T, dir string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	node := exec.CommandContext(ctx, dbtest.Node(t), args...)
	node.Dir = dir
	if out, err := node.CombinedOutput(); err != nil {
		t.Errorf("node %q: %v\n%s", args, err, out)
	}
}
