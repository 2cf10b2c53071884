package sql_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// A page that is rendered from a standby has no cursor, and is told why and what to do.
func TestNoCursorOnAStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.Cluster(t)
	if _, _, err := sql.Migrate(dbtest.Context(t), primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	standby := connect(t, dbtest.Standby(t, primary).DSN("postgres"))
	_, err := standby.Exec(dbtest.Context(t), "SELECT rowcast.cursor()")
	said, _ := errors.AsType[*pgconn.PgError](err)
	if said == nil || said.Code != "55000" || said.Message != "rowcast.cursor() cannot be used on a standby" ||
		said.Detail != "The snapshot of a standby leaves out the transactions that are running on the primary." ||
		said.Hint != "Render the page from the primary." {
		t.Errorf("got %+v", err)
	}
}
