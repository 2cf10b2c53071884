package dbtest

import (
	"errors"
	"os"
	"testing"

	"rowcast/sql/cluster"
)

// Client returns the path of a client program, such as pg_dump, that works with
// the tests' server. If there is none, it skips the test. With CI=true, it skips
// the test only if all installed versions of the program do not work with the
// server, and it fails the test if no version is installed.
func Client(t testing.TB, name string) string {
	t.Helper()
	b, err := prepare()
	if err != nil {
		t.Fatalf("dbtest: no PostgreSQL for the test: %v", err)
	}
	program, err := b.programs.Client(t.Context(), name)
	if err == nil {
		return program
	}
	if os.Getenv("CI") == "true" && !errors.Is(err, cluster.ErrClientVersion) {
		t.Fatalf("dbtest: %v", err)
	}
	t.Skipf("dbtest: %v", err)
	return ""
}
