//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// installClient creates a directory with a client program that prints the
// version.
func installClient(t *testing.T, name, version string) string {
	t.Helper()
	dir := t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\necho '%s (PostgreSQL) %s'\n", name, version)
	writeProgram(t, filepath.Join(dir, name), script)
	return dir
}

func TestClientFitsTheServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		versions []string // the versions of the installed programs
		want     int      // index of the chosen program; -1 means that no program is chosen
		err      error
	}{
		{name: "pg_dump", versions: []string{"15.18 (Debian 15.18-0+deb12u1)", "16.1"}},
		{name: "pg_dump", versions: []string{"13.23", "14.1", "16.1", "15.1"}, want: 2},
		{name: "pg_dump", versions: []string{"13.23", "14.1"}, want: -1, err: cluster.ErrClientVersion},
		{name: "pg_dump", versions: []string{"nonsense"}, want: -1, err: cluster.ErrNoClient},
		{name: "pg_dump", want: -1, err: cluster.ErrNoClient},
		{name: "psql", versions: []string{"13.23"}},
		{name: "psql", want: -1, err: cluster.ErrNoClient},
	} {
		dirs := []string{t.TempDir()}
		for _, version := range test.versions {
			dirs = append(dirs, installClient(t, test.name, version))
		}
		var want string
		if test.want >= 0 {
			want = filepath.Join(dirs[test.want+1], test.name)
		}
		got, err := cluster.Programs{Major: 15}.ClientIn(dbtest.Context(t), test.name, dirs...)
		if got != want || !errors.Is(err, test.err) {
			t.Errorf("%s with the versions %q for PostgreSQL 15: got %q, %v, want %q, %v", test.name, test.versions, got, err, want, test.err)
		}
	}
}

func TestClientBesideTheServerIsPreferred(t *testing.T) {
	t.Parallel()
	programs := cluster.Programs{Major: 15, Dir: installClient(t, "psql", "15.1")}
	if got, err := programs.Client(dbtest.Context(t), "psql"); err != nil || got != filepath.Join(programs.Dir, "psql") {
		t.Errorf("got %q, %v, want the program in %s", got, err, programs.Dir)
	}
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	cancel()
	if got, err := programs.Client(ctx, "psql"); !errors.Is(err, context.Canceled) {
		t.Errorf("with a cancelled context: got %q, %v, want context.Canceled", got, err)
	}
}
