package sql_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// The tables of README.md contain exactly the columns and the CHECK constraints of rowcast.notifications.
func TestReadmeHasTheColumnsAndConstraints(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## The table")
	table, _, _ = strings.Cut(table, "## Roles")
	var documented []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(table, -1) {
		documented = append(documented, row[1])
	}
	slices.Sort(documented)
	conn := connect(t, dbtest.Database(t))
	const inSchema = `SELECT name::text COLLATE "C" FROM (
			SELECT attname FROM pg_attribute WHERE attrelid = 'rowcast.notifications'::regclass AND attnum > 0
			UNION ALL SELECT conname FROM pg_constraint WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'c'
			UNION ALL SELECT 'has_utf8_form') names (name) ORDER BY 1` // has_utf8_form exists only if the encoding is not UTF-8
	rows, err := conn.Query(dbtest.Context(t), inSchema)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(documented, names) {
		t.Errorf("README.md has the columns and constraints %q, want %q", documented, names)
	}
}

// The SQL of README.md runs with the rights of an app.
func TestReadmeSQLRuns(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	dsn := dbtest.Inbox(t)
	conn := connect(t, dsn)
	app := createRole(t, conn, "app")
	if err := sql.Grant(dbtest.Context(t), dsn, sql.Roles{Apps: []string{app}}); err != nil {
		t.Fatal(err)
	}
	run(t, conn, "CREATE TABLE orders AS SELECT 'open' AS status; GRANT SELECT ON orders TO PUBLIC")
	setRole(t, conn, app)
	blocks := regexp.MustCompile("(?s)```sql\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 4 {
		t.Errorf("README.md has %d blocks of SQL, want 4", len(blocks))
	}
	for _, block := range blocks {
		if _, err := conn.PgConn().Exec(dbtest.Context(t), block[1]).ReadAll(); err != nil {
			t.Errorf("%s: %v", block[1], err)
		}
	}
}
