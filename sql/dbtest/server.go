package dbtest

import (
	"context"
	"errors"
	"testing"

	"rowcast/sql/cluster"
)

// lease returns the shared server, started by the first test that asks.
func lease(t testing.TB) *cluster.Cluster {
	t.Helper()
	if !shared.inMain.Load() {
		t.Fatal("dbtest: the package has no TestMain that calls dbtest.Main")
	}
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.asked {
		shared.asked = true
		// Not the test's context: the server outlives it.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		shared.server, shared.err = start(ctx)
	}
	if shared.err != nil {
		t.Fatalf("dbtest: no PostgreSQL for the tests: %v", shared.err)
	}
	return shared.server
}

func start(ctx context.Context) (*cluster.Cluster, error) {
	programs, dir, err := place(ctx)
	if err != nil {
		return nil, err
	}
	server := &cluster.Cluster{
		Dir:      dir,
		BinDir:   programs.Dir,
		Shared:   true,
		Settings: settings(),
	}
	err = startSwept(ctx, server)
	if err == nil || ctx.Err() != nil || errors.Is(err, cluster.ErrInUse) {
		return server, err
	}
	// Nothing in there is worth keeping.
	server.Fresh = true
	if again := startSwept(ctx, server); again != nil {
		return nil, errors.Join(err, again)
	}
	return server, nil
}

func startSwept(ctx context.Context, server *cluster.Cluster) error {
	if err := server.Start(ctx); err != nil || server.Joined() {
		return err
	}
	if err := sweep(ctx, server); err != nil {
		return errors.Join(err, server.Stop(ctx))
	}
	return nil
}

// settings make the server quick and keep what the code under test may see of
// a real one: commits wait for the log as usual, only the disk is not waited for.
func settings() map[string]string {
	return map[string]string{
		"fsync":                     "off",
		"full_page_writes":          "off",
		"max_connections":           "300",
		"max_prepared_transactions": "20",
	}
}

func release() error {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return shared.server.Stop(ctx)
}
