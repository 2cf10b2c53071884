//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// writeProgram writes an executable script. ForkLock keeps this process from starting other processes meanwhile. A new
// process has the open files of this process for a moment, and Linux does not run a program that a process has open for
// writing (https://go.dev/issue/22315).
func writeProgram(t *testing.T, path, script string) {
	t.Helper()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
}

// install creates a directory that looks like an installation of a version.
func install(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for name, says := range map[string]string{"postgres": "postgres (PostgreSQL) " + version, "initdb": "initdb"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", says)
		writeProgram(t, filepath.Join(dir, name), script)
	}
	return dir
}

func TestFirstOnPathIsChosenElseTheNewest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		path, usual []string // the installed versions, on PATH and in the usual places
		want        string   // "path 1" is the second on PATH, "usual 0" the first of the usual places, "" means ErrNotFound
	}{
		{path: []string{"13.1", "15.4"}, usual: []string{"17.2"}, want: "path 0"},
		{path: []string{"9.6.24", "nonsense", "14.1", "15.4"}, usual: []string{"17.2"}, want: "path 2"},
		{path: []string{"12.22"}, usual: []string{"17.2"}, want: "usual 0"},
		{usual: []string{"13.1", "9.6.24", "15.4 (Debian 15.4-1)"}, want: "usual 2"},
		{usual: []string{"15.4", "17.2", "16.1"}, want: "usual 1"},
		{usual: []string{"17.2", "18beta1"}, want: "usual 1"},
		{usual: []string{"16.1", "16.5"}, want: "usual 0"},
		{path: []string{"12.22"}, usual: []string{"nonsense"}},
		{},
	} {
		names := map[string]string{"": ""}
		install := func(kind string, versions []string) []string {
			dirs := []string{filepath.Join(t.TempDir(), "nothing")}
			for i, version := range versions {
				dir := install(t, version)
				names[dir] = fmt.Sprint(kind, " ", i)
				dirs = append(dirs, dir)
			}
			return dirs
		}
		got, err := cluster.Choose(dbtest.Context(t), install("path", test.path), install("usual", test.usual))
		if names[got.Dir] != test.want || (err == nil) != (test.want != "") || err != nil && !errors.Is(err, cluster.ErrNotFound) {
			t.Errorf("%q on PATH and %q in the usual places: got %q, %v, want %q", test.path, test.usual, names[got.Dir], err, test.want)
		}
	}
}

func TestVersionIsRead(t *testing.T) {
	t.Parallel()
	dir := install(t, "15.18 (Debian 15.18-0+deb12u1)")
	got, err := cluster.Inspect(dbtest.Context(t), dir)
	if want := (cluster.Programs{Dir: dir, Version: "15.18", Major: 15}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := os.Remove(filepath.Join(dir, "initdb")); err != nil {
		t.Fatal(err)
	}
	if got, err := cluster.Inspect(dbtest.Context(t), dir); err == nil {
		t.Errorf("without initdb: got %+v, want an error", got)
	}
}

func TestLinksOnPathAreFollowed(t *testing.T) {
	t.Parallel()
	dir, links := install(t, "15.1"), t.TempDir()
	if err := os.Symlink(filepath.Join(dir, "postgres"), filepath.Join(links, "postgres")); err != nil {
		t.Fatal(err)
	}
	path := strings.Join([]string{t.TempDir(), links}, string(filepath.ListSeparator))
	if got := cluster.OnPath(path); len(got) != 1 || got[0] != dir {
		t.Errorf("programs on PATH are in %q, want only %q", got, dir)
	}
}

func TestWhatToInstallIsNamed(t *testing.T) {
	t.Parallel()
	_, err := cluster.Choose(dbtest.Context(t), nil, nil)
	if !errors.Is(err, cluster.ErrNotFound) {
		t.Fatalf("without programs: got error %v, want ErrNotFound", err)
	}
	for _, want := range []string{"apt install postgresql", "dnf install postgresql-server", "brew install postgresql"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("got error %q, want it to contain %q", err, want)
		}
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	cancel()
	if _, err := cluster.Choose(ctx, []string{install(t, "15.1")}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
