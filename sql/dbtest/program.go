package dbtest

import (
	"errors"
	"os"
	"os/exec"
	"testing"

	"rowcast/sql/cluster"
)

// Client returns the path of a client program, such as pg_dump, that works with
// the tests' server. If there is none, it skips the test. With CI=true, it fails
// the test if no version of the program is installed, and skips the test if the
// installed versions do not work with the server.
func Client(t testing.TB, name string) string {
	t.Helper()
	b, err := prepare()
	if err != nil {
		t.Fatalf("dbtest: no PostgreSQL for the test: %v", err)
	}
	program, err := b.programs.Client(t.Context(), name)
	switch {
	case errors.Is(err, cluster.ErrClientVersion):
		t.Skipf("dbtest: %v", err)
	case err != nil:
		Missing(t, err.Error())
	}
	return program
}

// Program returns the path of the first of the named programs that is installed.
// If none is installed, it calls [Missing] and names the Debian package of the
// first program.
func Program(t testing.TB, debianPackage string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, names[0]+" is not installed: apt install "+debianPackage+" (Debian)")
	return ""
}

// Missing skips a test that needs something that the machine does not have. With
// CI=true, which .ci/run sets, it fails the test, because a skipped test would
// not be noticed.
func Missing(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}
