package dbtest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"rowcast/sql/cluster"
)

// obtain is replaced by tests of what happens without PostgreSQL.
var obtain = cluster.Obtain

// place finds the programs, or downloads them, and the directory of the shared
// server.
func place(ctx context.Context) (cluster.Programs, string, error) {
	downloads, err := cluster.DefaultDir("programs")
	if err != nil {
		return cluster.Programs{}, "", err
	}
	programs, err := obtain(ctx, downloads, nil)
	if err != nil {
		return programs, "", err
	}
	dir, err := cluster.DefaultDir("test-" + strconv.Itoa(programs.Major))
	return programs, dir, err
}

// privates counts the private servers of this process.
var privates struct {
	mu    sync.Mutex
	count int
}

// Cluster starts a server for this test alone, to be restarted, crashed or
// promoted, with fsync off. It is stopped and removed when the test ends. Its
// files are copied, so that all such servers have one system identifier.
func Cluster(t testing.TB) *cluster.Cluster {
	t.Helper()
	c, err := private(Context(t))
	if err != nil {
		t.Fatalf("dbtest: no private PostgreSQL for the test: %v", err)
	}
	return startPrivate(t, c)
}

// Standby starts a hot standby of a private server that streams from it, for this test alone.
func Standby(t testing.TB, primary *cluster.Cluster) *cluster.Cluster {
	t.Helper()
	c, err := private(Context(t))
	if err != nil {
		t.Fatalf("dbtest: no standby for the test: %v", err)
	}
	c.Primary = primary
	return startPrivate(t, c)
}

// Stranger is Cluster with a system identifier of its own, which takes longer
// to make.
func Stranger(t testing.TB) *cluster.Cluster {
	t.Helper()
	c, err := private(Context(t))
	if err != nil {
		t.Fatalf("dbtest: no private PostgreSQL for the test: %v", err)
	}
	c.Template, c.InitArgs = "", initArgs
	return startPrivate(t, c)
}

func startPrivate(t testing.TB, c *cluster.Cluster) *cluster.Cluster {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(c.Stop(ctx), c.Remove(ctx)); err != nil {
			t.Errorf("remove the test's PostgreSQL: %v", err)
		}
	})
	if err := c.Start(Context(t)); err != nil {
		t.Fatalf("dbtest: no private PostgreSQL for the test: %v", err)
	}
	return c
}

func private(ctx context.Context) (*cluster.Cluster, error) {
	programs, dir, err := place(ctx)
	if err != nil {
		return nil, err
	}
	number, err := nextPrivate(ctx, dir)
	if err != nil {
		return nil, err
	}
	template := &cluster.Cluster{
		Dir:      filepath.Join(dir, "template-"+programs.Version),
		BinDir:   programs.Dir,
		InitArgs: initArgs,
		Shared:   true, // processes that come meanwhile wait
	}
	if err := template.Init(ctx); err != nil {
		return nil, err
	}
	return &cluster.Cluster{
		Dir:      filepath.Join(dir, fmt.Sprintf("private-%d-%d", os.Getpid(), number)),
		BinDir:   programs.Dir,
		Template: template.Dir,
		Settings: settings(),
	}, nil
}

// initArgs halve what is to be copied.
var initArgs = []string{"--wal-segsize=1"}

func nextPrivate(ctx context.Context, dir string) (int, error) {
	privates.mu.Lock()
	defer privates.mu.Unlock()
	if privates.count == 0 {
		if err := sweepPrivates(ctx, dir); err != nil {
			return 0, err
		}
	}
	privates.count++
	return privates.count, nil
}

// sweepPrivates removes the private servers of test binaries that were killed,
// before this process has any: what bears its pid is of an earlier one.
func sweepPrivates(ctx context.Context, dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, "private-*"))
	for _, path := range left {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), "private-"), "-")
		pid, _ := strconv.Atoi(owner)
		if pid != os.Getpid() && !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			continue
		}
		removeErr := (&cluster.Cluster{Dir: path}).Remove(ctx)
		if errors.Is(removeErr, cluster.ErrInUse) || errors.Is(removeErr, fs.ErrNotExist) {
			continue // another process sweeps it
		}
		err = errors.Join(err, removeErr)
	}
	return err
}
