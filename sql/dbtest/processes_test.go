package dbtest_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"rowcast/sql/dbtest"
)

// helperVariable makes this test binary another package's, which does what the
// variable says in a test of its own, below.
const helperVariable = "ROWCAST_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) == "without" {
		dbtest.WithoutPostgreSQL()
	}
	dbtest.Main(m)
}

// TestHelper is the test of the other packages.
func TestHelper(t *testing.T) {
	switch os.Getenv(helperVariable) {
	case "":
		t.Skip("runs in the other tests' processes")
	case "leak":
		go func() { select {} }()
		return
	case "private":
		fmt.Println("uses", dbtest.Cluster(t).DSN("postgres"))
	default:
		fmt.Println("uses", dbtest.Database(t))
	}
	io.Copy(io.Discard, os.Stdin)
}

// helper is the test binary of another package, with a home of its own and
// thus another shared server than this one. It is killed at its time limit.
type helper struct {
	cmd        *exec.Cmd
	stdin      io.Closer
	stdout     *bufio.Reader
	said, errs bytes.Buffer // all of stdout and stderr, complete after exit
	dsn        string
}

func start(t *testing.T, home, mode string) *helper {
	t.Helper()
	h := &helper{cmd: exec.CommandContext(dbtest.Context(t), os.Args[0], "-test.run=^TestHelper$")}
	h.cmd.Env = append(os.Environ(), helperVariable+"="+mode, "HOME="+home, "XDG_CACHE_HOME="+filepath.Join(home, "cache"))
	h.cmd.Stderr = &h.errs
	stdin, err := h.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := h.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	h.stdin, h.stdout = stdin, bufio.NewReader(io.TeeReader(stdout, &h.said))
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.cmd.Process.Kill()
		h.cmd.Wait()
	})
	return h
}

// uses waits until the helper's test has its database.
func (h *helper) uses(t *testing.T) string {
	t.Helper()
	for h.dsn == "" {
		line, err := h.stdout.ReadString('\n')
		if err != nil {
			h.exit(t)
			t.Fatalf("wait until the helper has its database: %v\n%s", err, h.output())
		}
		if dsn, ok := strings.CutPrefix(line, "uses "); ok {
			h.dsn = strings.TrimSpace(dsn)
		}
	}
	return h.dsn
}

// end lets the helper end its test, which must have succeeded.
func (h *helper) end(t *testing.T) {
	t.Helper()
	h.stdin.Close()
	if code := h.exit(t); code != 0 {
		t.Fatalf("exit code %d\n%s", code, h.output())
	}
}

// kill ends the helper as kill -9 does.
func (h *helper) kill(t *testing.T) {
	t.Helper()
	h.cmd.Process.Kill()
	h.exit(t)
}

// exit waits for the helper's end and returns its exit code.
func (h *helper) exit(t *testing.T) int {
	t.Helper()
	if _, err := io.Copy(io.Discard, h.stdout); err != nil {
		t.Fatal(err)
	}
	var failed *exec.ExitError
	if err := h.cmd.Wait(); err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return h.cmd.ProcessState.ExitCode()
}

func (h *helper) output() string { return h.said.String() + h.errs.String() }

// newHome makes a home that the server's user can reach.
func newHome(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "rowcast-dbtest-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// serverFiles finds the shared server's directory below a home.
func serverFiles(t *testing.T, home string) string {
	t.Helper()
	var found []string
	for _, cache := range []string{"cache", "Library/Caches"} {
		dirs, _ := filepath.Glob(filepath.Join(home, cache, "rowcast", "test-*"))
		found = append(found, dirs...)
	}
	if len(found) != 1 {
		t.Fatalf("shared servers below %s: %q, want one", home, found)
	}
	return found[0]
}

func runs(t *testing.T, home string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(serverFiles(t, home), "data", "postmaster.pid"))
	return err == nil
}

func databases(t *testing.T, dsn string) []string {
	t.Helper()
	return strings.Fields(ask(t, connect(t, dsn), "SELECT string_agg(datname, ' ') FROM pg_database WHERE starts_with(datname, 'test_')"))
}

// One home for all of it, as each needs an initdb.
func TestPackages(t *testing.T) {
	t.Parallel()
	home := newHome(t)
	for _, test := range []struct {
		name string
		run  func(t *testing.T, home string)
	}{
		{"share one server", packagesShareOneServer},
		{"mend what a killed one leaves", killedPackageIsMended},
		{"sweep a killed one's private server", privateServerIsSwept},
		{"stop the server when interrupted", interruptedPackageStopsTheServer},
		{"make broken files anew", brokenFilesAreMadeAnew},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(t, home)
			if runs(t, home) {
				t.Error("the server still runs")
			}
		})
	}
}

func packagesShareOneServer(t *testing.T, home string) {
	one, other := start(t, home, "use"), start(t, home, "use") // both find nothing there
	const identity = "SELECT pg_postmaster_start_time()"
	session := connect(t, one.uses(t))
	if got, want := ask(t, connect(t, other.uses(t)), identity), ask(t, session, identity); got != want {
		t.Errorf("servers started at %s and %s, want one", got, want)
	}
	other.end(t)
	if err := session.Ping(dbtest.Context(t)); err != nil {
		t.Errorf("after one of two packages has ended: %v", err)
	}
	one.end(t)
}

func killedPackageIsMended(t *testing.T, home string) {
	victim := start(t, home, "use")
	name := connect(t, victim.uses(t)).Config().Database
	victim.kill(t)
	if !runs(t, home) {
		t.Error("the server has ended with one of its users")
	}
	next := start(t, home, "use")
	if left := databases(t, next.uses(t)); slices.Contains(left, name) || len(left) != 1 {
		t.Errorf("databases %q, want one, and not the killed package's %s", left, name)
	}
	next.end(t)
}

func privateServerIsSwept(t *testing.T, home string) {
	victim := start(t, home, "private")
	victim.uses(t)
	private, err := filepath.Glob(filepath.Join(serverFiles(t, home), "private-*"))
	if err != nil || len(private) != 1 {
		t.Fatalf("private servers %q, %v, want one", private, err)
	}
	victim.kill(t)
	next := start(t, home, "private")
	next.uses(t)
	if _, err := os.Stat(private[0]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("private server of a killed package is still there (%v)", err)
	}
	next.end(t)
}

func interruptedPackageStopsTheServer(t *testing.T, home string) {
	h := start(t, home, "use")
	h.uses(t)
	if err := h.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := h.exit(t); code != 130 {
		t.Errorf("exit code %d, want 130\n%s", code, h.output())
	}
}

func brokenFilesAreMadeAnew(t *testing.T, home string) {
	if err := os.Truncate(filepath.Join(serverFiles(t, home), "data", "global", "pg_control"), 0); err != nil {
		t.Fatal(err)
	}
	h := start(t, home, "use")
	h.uses(t)
	h.end(t)
}

func TestWithoutPostgreSQLTestsFail(t *testing.T) {
	t.Parallel()
	h := start(t, newHome(t), "without")
	if code := h.exit(t); code != 1 || !strings.Contains(h.output(), "apt install postgresql") {
		t.Errorf("exit code %d, want 1 and what to install, said was\n%s", code, h.output())
	}
}

func TestLeakedGoroutinesFailThePackage(t *testing.T) {
	t.Parallel()
	h := start(t, newHome(t), "leak")
	if code := h.exit(t); code != 1 || !strings.Contains(h.output(), "left goroutines behind") || !strings.Contains(h.output(), "TestHelper") {
		t.Errorf("exit code %d, want 1 and the goroutine, said was\n%s", code, h.output())
	}
}
