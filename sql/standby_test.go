package sql_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// On a standby, rowcast.cursor(), Migrate and Unwatch fail with errors that say so and what to do.
func TestStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.Cluster(t)
	if _, _, err := sql.Migrate(dbtest.Context(t), primary.DSN("postgres")); err != nil {
		t.Fatal(err)
	}
	dsn := dbtest.Standby(t, primary).DSN("postgres")
	standby := connect(t, dsn)
	_, err := standby.Exec(dbtest.Context(t), "SELECT rowcast.cursor()")
	failure, _ := errors.AsType[*pgconn.PgError](err)
	if failure == nil || failure.Code != "55000" || failure.Message != "rowcast.cursor() cannot be used on a standby" ||
		failure.Detail != "The snapshot of a standby does not contain the transactions that run on the primary." ||
		failure.Hint != "Render the page from the primary." {
		t.Errorf("got %v, %#v, want code 55000 with the message, the detail and the hint for a standby", err, failure)
	}
	const advice = ": this is a standby: connect to the primary (target_session_attrs=read-write)"
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err == nil || !strings.HasSuffix(err.Error(), advice) {
		t.Errorf("Migrate: got %v, want an error that ends with %q", err, advice)
	}
	if _, _, err := sql.Unwatch(dbtest.Context(t), dsn, "rowcast.epoch"); err == nil || !strings.HasSuffix(err.Error(), advice) {
		t.Errorf("Unwatch: got %v, want an error that ends with %q", err, advice)
	}
}
