package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// After pg_upgrade, the server has another system identifier, but the rows keep their transaction numbers. So hubs work
// without rowcast migrate, and a cursor whose anchor is a row stays valid.
func TestUpgraded(t *testing.T) {
	t.Parallel()
	before, after := dbtest.Cluster(t), dbtest.Stranger(t)
	dsn := before.DSN("postgres")
	migrate(t, dsn)
	burn(t, dsn, 2000) // so that the rows have higher transaction numbers than the new server, still without rows, has assigned so far
	runSQL(t, dsn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '0')", "UPDATE rowcast.history SET horizon = (SELECT xid FROM rowcast.notifications)")
	h := serve(t, dsn)
	tail := h.tail(t, "alice")
	greeted := tail.out.await(t, `"id":"([^"]+)","event":"rowcast.hello"`)[1]
	first := insertAndAwait(t, dsn, tail, "1")
	second := insertAndAwait(t, dsn, tail, "2")
	h.stop()
	identifier := "SELECT system_identifier::text FROM pg_control_system()"
	was := valueOf(t, dsn, identifier)

	upgrade(t, before, after)
	dsn = after.DSN("postgres")
	if valueOf(t, dsn, identifier) == was {
		t.Fatal("the system identifier has not changed")
	}
	h = serve(t, dsn)
	resumed := map[string]*process{greeted: nil, first: nil, second: nil}
	for cursor := range resumed {
		resumed[cursor] = h.resume(t, cursor)
	}
	here := insertAndAwait(t, dsn, resumed[second], "3")
	wantData(t, resumed[greeted], 0, "1", "2", "3")
	wantData(t, resumed[first], 0, "2", "3")
	wantData(t, resumed[second], 0, "3")
	h.stop()
	migrate(t, dsn)
	h = serve(t, dsn)
	wantData(t, h.resume(t, first), 0, "2", "3")
	insertAndAwait(t, dsn, h.resume(t, here), "4")
	wantData(t, h.resume(t, here), 0, "4")
}

// upgrade stops two servers, runs pg_upgrade, and starts the new server.
func upgrade(t *testing.T, before, after *cluster.Cluster) {
	t.Helper()
	for _, c := range []*cluster.Cluster{before, after} {
		if err := c.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	cmd := postgres(t, "pg_upgrade", "--username=postgres", "--link",
		"--old-datadir="+filepath.Join(before.Dir, "data"), "--new-datadir="+filepath.Join(after.Dir, "data"),
		"--old-options=-c fsync=off", "--new-options=-c fsync=off")
	bin := filepath.Dir(cmd.Path)
	cmd.Args = append(cmd.Args, "--old-bindir="+bin, "--new-bindir="+bin)
	ownedBy(t, cmd, filepath.Join(after.Dir, "data"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("pg_upgrade: %v: %s", err, out)
	}
	if err := after.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// ownedBy makes a program run as the owner of files, in a directory of that user.
func ownedBy(t *testing.T, cmd *exec.Cmd, files string) {
	t.Helper()
	info, err := os.Stat(files)
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := dbtest.Owner(info)
	cmd.Dir = dbtest.Home(t)
	if err := os.Chown(cmd.Dir, uid, gid); err != nil {
		t.Fatal(err)
	}
	if uid != os.Geteuid() {
		dbtest.RunAs(cmd, uid, gid)
	}
}
