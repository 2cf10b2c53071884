package cluster_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// ownerVariable makes this test binary an owner: it starts the cluster that the
// variable describes, says so, and stops it when its standard input ends.
const ownerVariable = "ROWCAST_TEST_OWNER"

// base holds the directories of all tests. Not t.TempDir: for root that is
// closed to the server's user.
var base string

func TestMain(m *testing.M) {
	if description := os.Getenv(ownerVariable); description != "" {
		os.Exit(own(description))
	}
	code := runTests(m)
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) int {
	var err error
	if base, err = os.MkdirTemp("", "rowcast-cluster-"); err == nil {
		err = os.Chmod(base, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(base)
	return m.Run()
}

// patience is how long a test waits for a process or a server.
const patience = 2 * time.Minute

// template is made once: initdb takes most of a second. With small files of the
// log, half of what is copied.
var template = sync.OnceValues(func() (string, error) {
	c := &cluster.Cluster{Dir: filepath.Join(base, "template"), InitArgs: []string{"--wal-segsize=1"}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.Dir, c.Init(ctx)
})

// directory returns the name of a directory for this test alone, not made yet.
func directory(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp(base, "test-")
	if err == nil {
		err = os.Chmod(parent, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "pg")
}

// quick returns a cluster that needs no initdb and does not wait for the disk.
func quick(t *testing.T, dir string) *cluster.Cluster {
	t.Helper()
	files, err := template()
	if err != nil {
		t.Fatal(err)
	}
	return &cluster.Cluster{Dir: dir, Template: files, Settings: map[string]string{"fsync": "off"}}
}

func start(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	t.Cleanup(func() { stop(t, c) })
	if err := c.Start(dbtest.Context(t)); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // the test's own may have ended
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func started(t *testing.T) *cluster.Cluster {
	t.Helper()
	c := quick(t, directory(t))
	start(t, c)
	return c
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// query runs statements on a connection of their own and returns what the last
// one says, as text.
func query(t *testing.T, dsn string, statements ...string) string {
	t.Helper()
	conn := connect(t, dsn)
	defer conn.Close(dbtest.Context(t))
	var answer string
	for _, statement := range statements {
		results, err := conn.PgConn().Exec(dbtest.Context(t), statement).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		if last := results[len(results)-1]; len(last.Rows) > 0 {
			answer = string(last.Rows[0][0])
		}
	}
	return answer
}

// owner is another process that has a cluster.
type owner struct {
	Dir      string            `json:",omitempty"`
	Template string            `json:",omitempty"`
	Shared   bool              `json:",omitempty"`
	Settings map[string]string `json:",omitempty"`

	// What it answers.
	DSN    string `json:",omitempty"`
	PID    int    `json:",omitempty"`
	Joined bool   `json:",omitempty"`
	Err    string `json:",omitempty"`

	cmd   *exec.Cmd
	stdin io.Closer
}

// begin starts the process and waits for its answer. The process is killed at its time limit.
func (o *owner) begin(t *testing.T, program string, prepare ...func(*exec.Cmd)) {
	t.Helper()
	if err := o.tryBegin(dbtest.Context(t), program, prepare...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.kill)
}

func (o *owner) tryBegin(ctx context.Context, program string, prepare ...func(*exec.Cmd)) error {
	description, err := json.Marshal(o)
	if err != nil {
		return err
	}
	o.cmd = exec.CommandContext(ctx, program)
	o.cmd.Env = append(os.Environ(), ownerVariable+"="+string(description))
	o.cmd.Stderr = os.Stderr
	for _, f := range prepare {
		f(o.cmd)
	}
	if o.stdin, err = o.cmd.StdinPipe(); err != nil {
		return err
	}
	stdout, err := o.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := o.cmd.Start(); err != nil {
		return err
	}
	if err := json.NewDecoder(stdout).Decode(o); err != nil {
		return fmt.Errorf("wait for the owner's answer: %w", err)
	}
	return nil
}

// kill ends the owner as kill -9 does.
func (o *owner) kill() {
	o.cmd.Process.Kill()
	o.cmd.Wait()
}

// end lets the owner stop its cluster.
func (o *owner) end(t *testing.T) {
	t.Helper()
	o.stdin.Close()
	if err := o.cmd.Wait(); err != nil {
		t.Errorf("wait for the owner to stop its cluster: %v", err)
	}
}

func own(description string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var o owner
	if err := json.Unmarshal([]byte(description), &o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	c := &cluster.Cluster{Dir: o.Dir, Template: o.Template, Shared: o.Shared, Settings: o.Settings}
	if err := c.Start(ctx); err != nil {
		o.Err = err.Error()
	} else {
		o.DSN, o.PID, o.Joined = c.DSN("postgres"), c.PID(), c.Joined()
	}
	if err := json.NewEncoder(os.Stdout).Encode(o); err != nil {
		return 1
	}
	io.Copy(io.Discard, os.Stdin)
	stopping, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := c.Stop(stopping); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}
