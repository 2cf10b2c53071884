package sql_test

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

var update = flag.Bool("update", false, "write objects.txt and inbox/objects.txt anew")

// objects.txt lists the objects of a migrated database. inbox/objects.txt lists the objects that the inbox adds.
func TestObjectsAreThoseOfAMigratedDatabase(t *testing.T) {
	t.Parallel()
	base := listing(t, dbtest.Database(t))
	known := entry.FindAllString(base, -1)
	inbox := slices.DeleteFunc(entry.FindAllString(listing(t, dbtest.Inbox(t)), -1), func(e string) bool { return slices.Contains(known, e) })
	for file, got := range map[string]string{"objects.txt": base, "inbox/objects.txt": strings.Join(inbox, "")} {
		if *update {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s is not what rowcast migrate installs; run: go test ./sql -run %s -update\ngot:\n%s", file, t.Name(), got)
		}
	}
}

// entry matches an object in a listing: a line, and the lines after it that are indented by a tab.
var entry = regexp.MustCompile(`(?m)^[^\t\n].*\n(?:\t.*\n)+`)

// listing returns the objects of a database.
func listing(t *testing.T, dsn string) string {
	t.Helper()
	conn := connect(t, dsn)
	run(t, conn, "SET search_path = pg_catalog, pg_temp")
	got, err := sql.Listing(dbtest.Context(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	return got
}
