package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rowcast/sql/cluster"
)

// install makes a directory that looks like an installation of that version.
func install(t *testing.T, version string) string {
	t.Helper()
	dir := t.TempDir()
	for name, says := range map[string]string{"postgres": "postgres (PostgreSQL) " + version, "initdb": "initdb"} {
		script := fmt.Sprintf("#!/bin/sh\necho '%s'\n", says)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNewestVersionIsChosen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		versions []string
		want     int // its index, -1: none
	}{
		{[]string{"13.1", "9.6.24", "15.4 (Debian 15.4-1)"}, 2},
		{[]string{"15.4", "15.18", "15.5"}, 1},
		{[]string{"17.2", "18beta1"}, 1},
		{[]string{"18rc1", "18.0"}, 1},
		{[]string{"16.1", "16.1"}, 0},
		{[]string{"12.22", "nonsense"}, -1},
		{nil, -1},
	} {
		dirs := []string{filepath.Join(t.TempDir(), "nothing")}
		for _, version := range test.versions {
			dirs = append(dirs, install(t, version))
		}
		got, err := cluster.Newest(t.Context(), dirs)
		switch {
		case test.want < 0 && !errors.Is(err, cluster.ErrNotFound):
			t.Errorf("of %q: got %+v, %v, want ErrNotFound", test.versions, got, err)
		case test.want >= 0 && (err != nil || got.Dir != dirs[test.want+1]):
			t.Errorf("of %q: got %+v, %v, want number %d", test.versions, got, err, test.want)
		}
	}
}

func TestVersionIsRead(t *testing.T) {
	t.Parallel()
	dir := install(t, "15.18 (Debian 15.18-0+deb12u1)")
	got, err := cluster.Inspect(t.Context(), dir)
	if want := (cluster.Programs{Dir: dir, Version: "15.18", Major: 15}); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if err := os.Remove(filepath.Join(dir, "initdb")); err != nil {
		t.Fatal(err)
	}
	if got, err := cluster.Inspect(t.Context(), dir); err == nil {
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
		t.Errorf("programs on PATH in %q, want %q", got, dir)
	}
}

func TestWhatToInstallIsNamed(t *testing.T) {
	t.Parallel()
	c := &cluster.Cluster{Dir: directory(t), BinDir: t.TempDir()}
	err := c.Start(t.Context())
	if !errors.Is(err, cluster.ErrNotFound) {
		t.Fatalf("start without programs: %v, want ErrNotFound", err)
	}
	for _, want := range []string{"apt install postgresql", "dnf install postgresql-server", "brew install postgresql"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	if _, err := os.Stat(c.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("directory was made all the same (%v)", err)
	}
}

func TestFindEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cluster.Newest(ctx, []string{install(t, "15.1")}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}
