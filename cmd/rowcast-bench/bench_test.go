package main_test

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// Each scenario reports figures. TestPrivateServer runs the scenario curve, and TestOtherDesigns the scenario designs.
// The values of the figures are not checked, because they depend on the load of the machine.
func TestScenariosReportTheirFigures(t *testing.T) {
	t.Parallel()
	const number = `(\d[\d,.]*|not measured)`
	compared := func(what, with string) string {
		return `\| ` + what + ` +\| ` + number + ` +\| ` + with + `: ` + number + ` +\| ` + number + ` `
	}
	tests := []struct {
		scenarios string
		want      []string
	}{
		{"memory,connections", []string{
			compared("resident memory of each of 200 idle streams, KiB", "naive"), compared("resident memory of each of 300 idle streams, KiB", "naive"),
			compared("300 streams opened, per second", "naive"), compared("CPU of the hub per opened stream, µs", "naive"),
			compared("broadcast: from the first arrival to the last, ms", "naive"), `The memory of rowcast settled \d+ s after the last stream was opened`,
		}},
		{"broadcast,latency", []string{
			compared("CPU per delivery to 100 streams, µs", `loop of write\(2\)`), compared("CPU per delivery in user mode, µs", `loop of write\(2\)`),
			compared("CPU of the hub process per delivery, µs", "naive"),
			compared("at 1,000 rows/s: INSERT to client, p50, ms", "naive"), compared("at 1,000 rows/s: p99 of the INSERT itself, ms", "naive"),
			compared("at 3,000 rows/s: CPU of the hub per row, µs", "naive"),
		}},
		{"flood,writers", []string{
			compared("rows written, and with rowcast also delivered, per second", "no trigger"), compared("rows written and delivered, per second", "naive"),
			compared("p99, ms", "naive"), compared("at [0-9,.]+ rows/s, 0.9 of the naive design's maximum: p99, ms", "naive"), compared("p99 of the INSERT itself, ms", "naive"),
			compared("6 writers, one row per transaction, per second", "no trigger"), compared("2 writers, one row per transaction, per second", "no trigger"),
			compared("the same with the naive design's trigger, per second", "no trigger"),
		}},
		{"watch", []string{
			compared("6 writers, one row per transaction into a watched table, per second", "no trigger"),
			compared("the same with a trigger that sends each row with pg_notify, per second", "no trigger"),
			compared("the watched table against this trigger, per second", "pg_notify"),
		}},
		{"size", []string{
			compared("20,000 rows in the table: p50 at 1,000 rows/s, ms", "1,000"),
			compared("20,000 rows in the table: CPU of the hubs' sessions per row, µs", "1,000"),
		}},
		{"hubs,transaction", []string{
			compared("2 hubs: p99, ms", "one"), compared("2 hubs: rows of 8 writers, written and delivered, per second", "one"),
			compared("an open transaction: p99, ms", "without"),
		}},
		{"bulk,large", []string{
			compared("20,000 rows in one transaction: peak growth of the hub's memory, MiB", "its limits"),
			compared("4 rows of 5 MB: peak growth of the hub's memory, MiB", "its limits"),
		}},
	}
	server := dbtest.Cluster(t)
	t.Run("all", func(t *testing.T) {
		for _, tt := range tests {
			t.Run(tt.scenarios, func(t *testing.T) {
				t.Parallel()
				table := filepath.Join(t.TempDir(), "table.md")
				out, _ := runBench(t, "--only", tt.scenarios, "--table", table, "--database-url", server.DSN("postgres"))
				for _, want := range tt.want {
					if !regexp.MustCompile(want).MatchString(out) {
						t.Errorf("got\n%s\nwant a match of %q", out, want)
					}
				}
				if text, err := os.ReadFile(table); string(text) != out {
					t.Errorf("the file of --table contains %q (error: %v), want the printed text", text, err)
				}
			})
		}
	})
	if left := databases(t, server.DSN("postgres")); len(left) != 0 {
		t.Errorf("the databases %q were not removed", left)
	}
}

// Without a database URL, the benchmark starts a private server and removes it at the end. With --plot it writes a
// plot.
func TestPrivateServer(t *testing.T) {
	t.Parallel()
	home, plot := dbtest.Home(t), filepath.Join(t.TempDir(), "curve.svg")
	out, stderr := runBenchAt(t, home, "--only", "curve", "--plot", plot)
	const rate = `([\d.]+ / [\d.]+|only [\d,.]+ per second); [\d,.]+ \+ [\d,.]+`
	if !regexp.MustCompile(`\| 300 +(\| ` + rate + ` +){4}\|`).MatchString(out) {
		t.Errorf("no results at 300 rows per second for four designs:\n%s", out)
	}
	if drawn, err := os.ReadFile(plot); err != nil || !strings.Contains(string(drawn), ">always notified</text>") {
		t.Errorf("the plot has no legend (error: %v):\n%s", err, drawn)
	}
	if !regexp.MustCompile(`(?m)^curve +\d+ s$`).MatchString(stderr) {
		t.Errorf("without a terminal, stderr has %q, want a line with the name curve and a number of seconds", stderr)
	}
	if left, _ := filepath.Glob(filepath.Join(home, "cache", "rowcast", "bench", "data")); len(left) != 0 {
		t.Errorf("%q was not removed", left)
	}
}

// No child process that is connected to the database outlives the benchmark. An interrupted benchmark removes its
// database. A killed benchmark cannot do that.
func TestInterruptedRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		signal syscall.Signal
		left   int
	}{{syscall.SIGINT, 0}, {syscall.SIGKILL, 1}} {
		t.Run(tt.signal.String(), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Cluster(t).DSN("postgres")
			cmd := command(t, dbtest.Home(t), "--only", "transaction", "--database-url", dsn)
			stderr := new(output)
			cmd.Stderr = stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// All processes have started when the writers write.
			awaitSessions(t, dsn, "query LIKE 'INSERT INTO rowcast.%'", func(n int) bool { return n > 0 })
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait()
			if code := cmd.ProcessState.ExitCode(); tt.signal == syscall.SIGINT && (code != 1 || stderr.String() != "rowcast-bench: interrupted\n") {
				t.Errorf("got exit code %d, %q, want 1 and \"rowcast-bench: interrupted\"", code, stderr)
			}
			awaitSessions(t, dsn, "true", func(n int) bool { return n == 0 })
			if left := databases(t, dsn); len(left) != tt.left {
				t.Errorf("%d databases of the benchmark remain, want %d: %q", len(left), tt.left, left)
			}
		})
	}
}

func TestRoleWithoutCREATEDB(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	runSQL(t, server.DSN("postgres"), "CREATE ROLE nobody LOGIN")
	dsn := strings.Replace(server.DSN("postgres"), "postgres@", "nobody@", 1)
	code, out, stderr := run(t, "--quick", "--database-url", dsn)
	const want = "rowcast-bench: the benchmark creates its own databases, but the role \"nobody\" may not create any: ALTER ROLE \"nobody\" CREATEDB\n"
	if code != 1 || out != "" || stderr != want {
		t.Errorf("got exit code %d, %q, %q, want 1, no output and %q", code, out, stderr, want)
	}
}

// A role that has only CREATEDB can run the benchmark. The scenario size says that it has left out the CHECKPOINT.
func TestRoleWithCREATEDB(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	runSQL(t, server.DSN("postgres"), "CREATE ROLE creator LOGIN CREATEDB")
	dsn := strings.Replace(server.DSN("postgres"), "postgres@", "creator@", 1)
	out, stderr := runBench(t, "--only", "size", "--database-url", dsn)
	if !strings.Contains(out, "The role may not run CHECKPOINT") || strings.Contains(out, "Failed") {
		t.Errorf("got %s\n%s, want figures, and a note about CHECKPOINT", out, stderr)
	}
}

// runBench runs a quick benchmark to its end. It fails the test if the exit code is not 0.
func runBench(t *testing.T, args ...string) (out, stderr string) {
	t.Helper()
	return runBenchAt(t, dbtest.Home(t), args...)
}

func runBenchAt(t *testing.T, home string, args ...string) (out, errors string) {
	t.Helper()
	cmd := command(t, home, append([]string{"--quick"}, args...)...)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s\n%s", err, &stderr, &stdout)
	}
	return stdout.String(), stderr.String()
}

// databases returns the databases that benchmarks have created and not removed.
func databases(t *testing.T, dsn string) []string {
	t.Helper()
	names, err := query(t, dsn, "SELECT datname FROM pg_database WHERE datname LIKE 'rowcast_bench_%'")
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// awaitSessions counts the sessions of the benchmark for which the SQL expression condition is true. It waits until
// isRight accepts the number.
func awaitSessions(t *testing.T, dsn, condition string, isRight func(int) bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) {
		sessions, err := query(t, dsn, "SELECT application_name FROM pg_stat_activity WHERE datname LIKE 'rowcast_bench_%' AND "+condition)
		if err == nil && isRight(len(sessions)) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v, the benchmark's sessions with the condition %q are %q (error: %v), want another number of sessions", waitLimit, condition, sessions, err)
		}
	}
}

func query(t *testing.T, dsn, statement string) ([]string, error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), statement)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

// Another user may create functions that have the same names as functions in pg_catalog. The benchmark calls none of
// them.
func TestFunctionsOfOtherUsersAreNotCalled(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, dbtest.Traps, "ALTER DATABASE "+pgx.Identifier{config.Database}.Sanitize()+" SET search_path = public, pg_catalog")
	code, out, stderr := run(t, "--quick", "--only", "flood", "--database-url", dsn)
	if code != 0 || strings.Contains(out+stderr, "trap of another role") {
		t.Errorf("got exit code %d, %s, %s, want 0 and no call of another user's function", code, out, stderr)
	}
	caught, err := query(t, dsn, "SELECT is_called::text FROM public.caught")
	if err != nil || len(caught) != 1 || caught[0] != "false" {
		t.Errorf("the sequence of the traps has is_called = %q (error: %v), want false, which means that no trap was called", caught, err)
	}
}
