package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	main "rowcast/cmd/rowcast-bench"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// programVariable is an environment variable. If it is set, the test binary runs as the program rowcast-bench.
const programVariable = "TEST_ROWCAST_PROGRAM"

func init() {
	if os.Getenv(programVariable) != "" {
		main.Main()
	}
}

// waitLimit is the time limit of a wait for a process or for the sessions of a database.
const waitLimit = 2 * time.Minute

// command returns a command that runs the program with its own home directory.
func command(t *testing.T, home string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{programVariable + "=1", "HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, "cache"), "PATH=" + os.Getenv("PATH")}
	return cmd
}

// run runs the program to its end.
func run(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := command(t, dbtest.Home(t), args...)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	_ = cmd.Run()
	return cmd.ProcessState.ExitCode(), out.String(), errors.String()
}

// An output collects what a process writes.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func runSQL(t *testing.T, dsn string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range statements {
		if _, err := conn.Exec(dbtest.Context(t), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// A wrong command line is refused before anything is measured.
func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for arg, want := range map[string]string{
		"--only=memory,speed": `rowcast-bench: --only: there is no scenario "speed"; the scenarios are memory, broadcast, latency, curve, designs, flood, writers, watch, size, transaction, hubs, bulk, large, connections` + "\n",
		"--plot=curve.gif":    `rowcast-bench: --plot: "curve.gif" does not end in .svg or .png` + "\n",
		"child":               "rowcast-bench: the role is missing\n",
	} {
		if code, out, stderr := run(t, arg); code == 0 || out != "" || stderr != want {
			t.Errorf("%s: got exit code %d, %q, %q, want another code than 0, no output and %q", arg, code, out, stderr, want)
		}
	}
}
