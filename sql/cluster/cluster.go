// Package cluster runs a private PostgreSQL server with installed or downloaded programs. The demo, the benchmark and
// the tests use it.
//
// The server listens on a Unix socket in a directory that other users cannot enter, and on 127.0.0.1 if a port is set.
// PostgreSQL refuses to run as root. When this process is root, the server runs as an unprivileged user (see
// serverAccount).
//
// The server should end with the process that started it. [Cluster.Stop] stops it in the normal case. If the process is
// killed, the kernel stops the server on Linux and FreeBSD. On other systems the next Start with the same directory
// stops it.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

var (
	// ErrInUse is returned when another Cluster uses the directory.
	ErrInUse = errors.New("directory is in use")
	// ErrOtherVersion is returned when another major version of PostgreSQL created the files in the directory. Fresh
	// deletes them.
	ErrOtherVersion = errors.New("the files are of another version of PostgreSQL")
	// ErrUnsupported is returned on a system that is not a Unix, such as Windows.
	ErrUnsupported = fmt.Errorf("private PostgreSQL servers are not supported on %s", runtime.GOOS)
)

// A Cluster is one PostgreSQL server with its files. Its fields are the configuration. They must not be changed while a
// method runs. Settings take effect at the next start. The methods may be called by several goroutines.
type Cluster struct {
	// Dir is the directory of the data, the log and the socket. If its path is too long for a socket, the socket is in
	// /tmp. Start creates Dir if it does not exist. DefaultDir returns a suitable directory. Required.
	Dir string

	Programs Programs          // the server programs; the default is the result of Find
	Settings map[string]string // server settings such as "fsync": "off"
	InitArgs []string          // additional arguments for initdb

	// Port is a TCP port on 127.0.0.1. A connection over TCP needs a password. The superuser has no password at first.
	// If Port is 0, the server does not listen on TCP.
	Port int

	// Template is the path of a directory with data files. If Dir has no data files, Start copies the files from
	// Template, so all copies have the same system identifier. If Template has no files, initdb first creates them there.
	// If Template is "", initdb creates the files in Dir.
	Template string

	// Primary, if not nil, is a running Cluster. The server is then its hot standby. If Dir has no data files, Start
	// makes a base backup of Primary and ignores Template.
	Primary *Cluster

	// Fresh makes the next Start delete the files of earlier runs. Start sets it to false when they are deleted.
	Fresh bool

	// Progress, if not nil, is called before a step that can take long, such as initdb.
	Progress func(step string)

	mu      sync.Mutex
	dir     string // Dir without symbolic links
	account account
	unlock  func()  // unlocks dir; nil when stopped
	server  *server // nil when stopped
}

// Start creates the data files if there are none, starts the server and returns when the server accepts connections.
// ctx limits the start only. If the server ends or does not become ready, the error contains the last lines of its log.
func (c *Cluster) Start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil {
		select {
		case <-c.server.exited: // by itself
			c.release()
		default:
			return errors.New("start PostgreSQL: already started")
		}
	}
	err := c.prepare(ctx)
	if err == nil {
		err = c.run(ctx)
	}
	if err != nil {
		c.release()
		return fmt.Errorf("start PostgreSQL in %s: %w", c.Dir, err)
	}
	return nil
}

func (c *Cluster) release() {
	if c.unlock != nil {
		c.unlock()
	}
	c.unlock, c.server = nil, nil
}

// prepare finds the programs, locks the directory, and stops a server that still uses it. It deletes the data files if
// Fresh is set, and creates what is missing.
func (c *Cluster) prepare(ctx context.Context) (err error) {
	if c.Dir == "" {
		return errors.New("no directory is set")
	}
	if c.Programs.Dir == "" {
		if c.Programs, err = Find(ctx); err != nil {
			return err
		}
	}
	if c.account, err = serverAccount(c.Dir); err != nil {
		return err
	}
	if c.dir, err = makeDir(c.Dir, c.account); err != nil {
		return err
	}
	if c.unlock, err = lock(ctx, c.dir, false); err != nil {
		return err
	}
	if err := c.stopLeftover(ctx); err != nil {
		return err
	}
	if c.Fresh {
		c.report("removing the files of earlier runs in %s", c.dir)
		if err := os.RemoveAll(c.data()); err != nil {
			return err
		}
		c.Fresh = false
	}
	if err := c.initialize(ctx); err != nil {
		return err
	}
	return c.makeSocketDir()
}

// run starts the server on the files and waits until it accepts connections.
func (c *Cluster) run(ctx context.Context) error {
	for deadline := time.Now().Add(patience); ; {
		server, err := spawn(c.account.command(context.Background(), filepath.Join(c.Programs.Dir, "postgres"), c.arguments()...), c.logFile())
		if err != nil {
			return err
		}
		if err = server.awaitReady(ctx, c.data()); err == nil {
			c.server = server
			return nil
		}
		err = fmt.Errorf("%w%s", errors.Join(err, server.stop(context.WithoutCancel(ctx), Immediate)), c.lastLines())
		// The new server cannot start until all sessions of a killed server have ended.
		if !strings.Contains(err.Error(), "pre-existing shared memory block") || time.Now().After(deadline) {
			return err
		}
	}
}

// arguments returns the command line of the server. examine recognizes the server by the first two arguments.
func (c *Cluster) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "",
		"port":                    c.port(),
		"unix_socket_directories": c.socketDir(),
		"unix_socket_permissions": "0700",
		"logging_collector":       "off",
		"log_destination":         "stderr",
	}
	if c.Port != 0 {
		settings["listen_addresses"] = "127.0.0.1"
	}
	maps.Copy(settings, c.Settings)
	args := []string{"-D", c.data()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// A Mode is a signal that stops a server: https://www.postgresql.org/docs/current/server-shutdown.html
type Mode = syscall.Signal

const (
	// Fast disconnects the sessions and writes everything to the disk.
	Fast Mode = syscall.SIGINT
	// Immediate writes nothing. The next start recovers the data from the WAL, as after a crash.
	Immediate Mode = syscall.SIGQUIT
)

// Stop disconnects the sessions, stops the server and unlocks the directory. If ctx ends first, or after 20 s, the
// server is stopped as by a crash, which makes the next start slower. If the cluster is not started, Stop does nothing.
func (c *Cluster) Stop(ctx context.Context) error { return c.stop(ctx, Fast) }

// Kill ends all processes of the server with SIGKILL, as in a crash. The next Start recovers the data from the WAL.
func (c *Cluster) Kill() error { return c.stop(context.Background(), syscall.SIGKILL) }

func (c *Cluster) stop(ctx context.Context, mode Mode) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	defer c.release()
	if mode == syscall.SIGKILL {
		err = c.server.killChildren(ctx)
	}
	if err = errors.Join(err, c.server.stop(ctx, mode)); err != nil {
		return fmt.Errorf("stop PostgreSQL in %s: %w", c.Dir, err)
	}
	_ = os.Remove(c.socketDir()) // the directory may be in /tmp, where nobody else removes it
	return nil
}

// Restart stops the server with the given mode and starts it again. The connection string stays the same.
func (c *Cluster) Restart(ctx context.Context, mode Mode) error {
	if err := c.stop(ctx, mode); err != nil {
		return err
	}
	return c.Start(ctx)
}

// Wait waits until the server ends. It returns nil if Stop, Restart or Kill has ended the server, or if the server is
// not started. It returns an error if the server has ended by itself. When ctx ends, Wait returns the error of ctx.
func (c *Cluster) Wait(ctx context.Context) error {
	c.mu.Lock()
	server := c.server
	c.mu.Unlock()
	if server == nil {
		return nil
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-server.exited:
	}
	c.mu.Lock() // Stop, Restart and Kill hold this mutex until the server has ended.
	defer c.mu.Unlock()
	if c.server == server {
		return fmt.Errorf("PostgreSQL in %s has ended%s", c.Dir, c.lastLines())
	}
	return nil
}

// DSN returns the connection string of a database. It is valid after Start has returned and does not change as long as
// Dir and Port do not.
func (c *Cluster) DSN(database string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	query := url.Values{"host": {c.socketDir()}, "port": {c.port()}}.Encode()
	query = strings.NewReplacer("%2F", "/", "+", "%20").Replace(query) // libpq does not accept + for a space
	return (&url.URL{Scheme: "postgres", User: url.User("postgres"), Path: "/" + database, RawQuery: query}).String()
}

// port returns the server's port, which is a part of the socket's file name.
func (c *Cluster) port() string { return strconv.Itoa(cmp.Or(c.Port, 5432)) }

func (c *Cluster) data() string    { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string { return filepath.Join(c.dir, "log") }

func (c *Cluster) lastLines() string {
	text, _ := os.ReadFile(c.logFile())
	return quote(text)
}

func (c *Cluster) report(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}
