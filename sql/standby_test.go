package sql_test

import (
	"errors"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// On a standby, rowcast.cursor() fails with an error that contains the reason and a hint.
func TestNoCursorOnAStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.Cluster(t)
	if _, _, err := sql.Migrate(dbtest.Context(t), primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	standby := connect(t, dbtest.Standby(t, primary).DSN("postgres"))
	_, err := standby.Exec(dbtest.Context(t), "SELECT rowcast.cursor()")
	failure, _ := errors.AsType[*pgconn.PgError](err)
	if failure == nil || failure.Code != "55000" || failure.Message != "rowcast.cursor() cannot be used on a standby" ||
		failure.Detail != "The snapshot of a standby does not contain the transactions that run on the primary." ||
		failure.Hint != "Render the page from the primary." {
		t.Errorf("got %v, %#v, want code 55000 with the message, the detail and the hint for a standby", err, failure)
	}
}
