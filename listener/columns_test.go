package listener_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// The app has added columns to the table. Whatever their names are, no query of the listener takes such a column for a
// name of its own. The test gives the columns all names that appear in the queries. The transaction of the first two
// rows is in flight in the cursor from which the rows are replayed. The numbers in the data of the last row are measured.
func TestColumnsOfTheApp(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, "ALTER TABLE rowcast.notifications "+strings.Join(addedColumns(t), ", "))
	exec(t, conn, "BEGIN")
	insert := func(data string) {
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'e', $1)", data)
	}
	insert("1")
	var random [5 << 10]byte
	_, _ = rand.NewChaCha8([32]byte{}).Read(random[:])
	large := fmt.Sprintf(`["%x", 1, 2, 3, 4, 5, 6, 7, 8]`, random)
	readInEveryWay(t, dsn, func() {
		insert("2")
		exec(t, conn, "COMMIT")
		insert("3")
		insert(large)
	}, []string{"alice e 1", "alice e 2", "alice e 3", "alice e " + large}, 0)
}

// addedColumns returns a clause ADD COLUMN for each name in the queries of the listener that the table does not have.
func addedColumns(t *testing.T) (clauses []string) {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, query := range regexp.MustCompile("`[^`]*`").FindAllString(string(source), -1) {
			for _, name := range regexp.MustCompile(`\b[a-z_]+\b`).FindAllString(query, -1) {
				names[name] = true
			}
		}
	}
	for _, name := range []string{
		"id", "recipient", "event", "data", "created_at", "xid", // the columns of the table
		"xmin", "xmax", // columns that each table has
	} {
		delete(names, name)
	}
	for name := range names {
		clauses = append(clauses, `ADD COLUMN "`+name+`" text DEFAULT repeat('x', 20000)`)
	}
	if len(clauses) < 100 {
		t.Fatalf("found only %d names", len(clauses))
	}
	return clauses
}
