// Package dbtest gives tests a real PostgreSQL: one private server that all
// test binaries of a "go test ./..." share, and in it a database for each test.
//
// Every package that uses it begins its tests with
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// The first test binary that asks for a database starts the server, the last
// one to end stops it; binaries that are killed are noticed by the next. The
// server runs as package cluster says, with fsync off. Where no PostgreSQL can
// be had, the tests that need one fail and say what to install.
package dbtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"rowcast/sql/cluster"
)

// shared is this process's share of the server.
var shared struct {
	inMain atomic.Bool
	mu     sync.Mutex
	asked  bool // lease has been tried
	err    error
	server *cluster.Cluster
	// templates holds the name of the migrated template once it is there.
	template string
}

// Main runs the tests of a package, fails if they leave goroutines behind,
// gives up the share of the server and exits. It is the whole of a TestMain.
func Main(m *testing.M) {
	shared.inMain.Store(true)
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go releaseOn(interrupted, done)

	code := m.Run()

	signal.Stop(interrupted)
	close(done)
	if code == 0 {
		code = checkLeaks()
	}
	if err := release(); err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		code = 1
	}
	os.Exit(code)
}

// releaseOn gives up the server when the tests are interrupted.
func releaseOn(interrupted <-chan os.Signal, done <-chan struct{}) {
	select {
	case <-interrupted:
		_ = release() // the next test binary mends what fails
		os.Exit(130)
	case <-done:
	}
}

func checkLeaks() int {
	// The one that waits for the server ends with it, after this check.
	err := goleak.Find(goleak.IgnoreAnyFunction("rowcast/sql/cluster.(*server).own"))
	if err != nil {
		fmt.Fprintln(os.Stderr, "dbtest: the tests left goroutines behind:", err)
		return 1
	}
	return 0
}

// Database makes a database with the migrated schema for this test and returns
// its connection string. It is dropped when the test ends, with whoever is
// still connected.
func Database(t testing.TB) string {
	t.Helper()
	server := lease(t)
	template, err := migratedTemplate(t.Context(), server)
	if err != nil {
		t.Fatalf("make the template database: %v", err)
	}
	return create(t, server, template)
}

// Empty is Database without the schema.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, lease(t), "template0")
}

func create(t testing.TB, server *cluster.Cluster, template string) string {
	t.Helper()
	name := "test_" + strconv.Itoa(os.Getpid()) + "_" + strings.ToLower(rand.Text()[:8])
	if err := admin(t.Context(), server, "CREATE DATABASE "+name+" TEMPLATE "+template); err != nil {
		t.Fatalf("make a database for the test: %v", err)
	}
	t.Cleanup(func() {
		// The test's context has ended.
		if err := drop(context.Background(), server, name); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return server.DSN(name)
}
