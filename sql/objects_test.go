package sql_test

import (
	"flag"
	"os"
	"testing"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

var update = flag.Bool("update", false, "write objects.txt anew")

// The list of expected objects is the list of the objects in a migrated database.
func TestObjectsAreThoseOfAMigratedDatabase(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, "SET search_path = pg_catalog, pg_temp")
	got, err := sql.Listing(dbtest.Context(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("objects.txt", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("objects.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("objects.txt is not what rowcast migrate installs; run: go test ./sql -run %s -update\ngot:\n%s", t.Name(), got)
	}
}
