// Package cluster runs a private PostgreSQL server: it finds the installed
// programs, makes the files, starts and stops the server, and mends what a
// killed owner has left behind. The demo and the tests run on it.
//
// What crosses the border is a directory on the way in and connection strings
// on the way out. The server listens on a Unix socket in a directory that only
// its owner can enter, and on 127.0.0.1 with a random password, so that other
// users of the machine get in by neither way. When the owner is root, which
// PostgreSQL refuses, the server runs as the user postgres, or nobody.
//
// A server ends with the process that started it: by Stop in the orderly case;
// on Linux and FreeBSD also when the process is killed, as the kernel then
// signals the server; elsewhere the next Start stops what was left running.
// Errors of a server that does not start carry the last lines of its log.
//
// A started Cluster has one goroutine, which waits for the server process and
// ends with it.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

var (
	// ErrInUse is returned when another process (or another Cluster of this
	// one) already has the directory.
	ErrInUse = errors.New("directory is in use")
	// ErrOtherVersion is returned when the files were made by another major
	// version than that of the programs found.
	ErrOtherVersion = errors.New("made by another PostgreSQL version")

	errNoDir      = errors.New("no directory is set")
	errNotStarted = errors.New("server is not started")
	errShared     = errors.New("server is shared with other processes")
)

// Cluster is one PostgreSQL server with its files. The exported fields are its
// configuration and must not be changed after the first call; the methods may
// be called from several goroutines.
type Cluster struct {
	// Dir holds everything: data, log, password, socket. It is made if it does
	// not exist (its parents too) and kept by Stop. When running as root the
	// user postgres must be able to reach it. DefaultDir returns a good one.
	// Required.
	Dir string

	// BinDir is the directory of PostgreSQL's programs. Empty: that of Find.
	BinDir string

	// Port is the TCP port on 127.0.0.1. 0: that of the last run if it is
	// still free, otherwise any free one. It stays the same over restarts.
	Port int

	// Settings are server settings such as "fsync": "off". They win over the
	// ones that Cluster makes itself.
	Settings map[string]string

	// InitArgs are further arguments for initdb, when it makes the files.
	InitArgs []string

	// Template is the Dir of another, stopped Cluster, whose files are copied
	// instead of making new ones. The copy has the same system identifier.
	Template string

	// Primary, if set, makes this a hot standby: new files are a base backup
	// of that running Cluster, from which the standby then streams.
	Primary *Cluster

	// Fresh makes the first Start throw away the files of earlier runs.
	Fresh bool

	// Shared lets several processes use one Dir at once: the first Start
	// starts the server, later ones join it, the last Stop stops it. Such a
	// server outlives a killed owner; the next one that finds no other owner
	// starts it anew. All of them should have the same Settings.
	Shared bool

	// Progress is told, in a few words, what takes time: "making a new
	// database cluster in …". Nil: nobody is told.
	Progress func(step string)

	mu       sync.Mutex
	dir      string // Dir, absolute and without symbolic links
	programs Programs
	account  account
	lock     *lock
	server   *server
	address  address
	joined   bool
	made     bool // the first Start is over: Fresh has been obeyed
}

// Start makes the files if there are none, starts the server and returns when
// it accepts connections. ctx bounds the starting only. It fails with
// ErrNotFound, ErrInUse, ErrOtherVersion, or with the server's own words.
func (c *Cluster) Start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server != nil && c.server.alive() {
		return errors.New("start PostgreSQL: already started")
	}
	if c.server != nil { // it ended by itself
		c.give()
	}
	if err := c.start(ctx); err != nil {
		return fmt.Errorf("start PostgreSQL in %s: %w", c.Dir, err)
	}
	return nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	lock, err := acquire(ctx, c.dir, c.Shared)
	if err != nil {
		return err
	}
	defer lock.openGate()
	defer func() {
		if err != nil {
			lock.release()
		}
	}()

	server, err := c.join(ctx, lock.alone)
	c.joined = server != nil
	if server == nil && err == nil {
		server, err = c.launch(ctx)
	}
	if err != nil {
		return err
	}
	c.lock, c.server, c.made = lock, server, true
	return nil
}

// join returns the server that the other owners run. An owner that is alone
// has nothing to join: what still runs belongs to a dead one, perhaps with
// other settings, and is stopped.
func (c *Cluster) join(ctx context.Context, alone bool) (*server, error) {
	found, err := findServer(c.data())
	if err != nil || found == nil {
		return nil, err
	}
	if !alone {
		if err := found.awaitReady(ctx); err != nil {
			return nil, err
		}
		c.address, err = found.address()
		return found, err
	}
	c.say("stopping the server that an earlier run left behind")
	return nil, found.stop(ctx, Fast)
}

// launch makes the files if need be and starts a server of our own on them.
func (c *Cluster) launch(ctx context.Context) (*server, error) {
	if c.Fresh && !c.made {
		c.say("removing the files of earlier runs in %s", c.dir)
		if err := c.removeFiles(); err != nil {
			return nil, err
		}
	}
	if err := c.initialize(ctx); err != nil {
		return nil, err
	}
	return c.run(ctx)
}

// prepare finds out what is needed before the first file is touched.
func (c *Cluster) prepare(ctx context.Context) (err error) {
	if c.Dir == "" {
		return errNoDir
	}
	if c.programs, err = c.findPrograms(ctx); err != nil {
		return err
	}
	if c.account, err = serverAccount(c.Dir); err != nil {
		return err
	}
	c.dir, err = makeDir(c.Dir, c.account)
	return err
}

// Stop ends the server in an orderly way (sessions are cut off, the data
// written) and gives up the directory. A shared server is stopped only by its
// last owner. When ctx ends first, the server is stopped the rough way, which
// loses nothing either but makes the next start slower. Stopping what is not
// started does nothing.
func (c *Cluster) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return nil
	}
	defer c.give()
	if c.Shared {
		last, err := c.lock.leave(ctx)
		if err != nil || !last {
			return err
		}
	}
	if err := c.server.stop(ctx, Fast); err != nil {
		return fmt.Errorf("stop PostgreSQL in %s: %w", c.Dir, err)
	}
	c.removeSocketDir()
	return nil
}

// Restart stops the server by the given mode and starts it on the same port
// and socket. After Immediate it starts with crash recovery, as after a crash.
func (c *Cluster) Restart(ctx context.Context, mode Mode) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return fmt.Errorf("restart PostgreSQL: %w", errNotStarted)
	}
	if c.Shared {
		return fmt.Errorf("restart PostgreSQL: %w", errShared)
	}
	if err := c.server.stop(ctx, mode); err != nil {
		return fmt.Errorf("restart PostgreSQL in %s: %w", c.Dir, err)
	}
	server, err := c.run(ctx)
	if err != nil {
		c.give()
		return fmt.Errorf("restart PostgreSQL in %s: %w", c.Dir, err)
	}
	c.server = server
	return nil
}

// Kill ends the server and all its processes at once by SIGKILL, as a power
// failure would, and returns when they are gone. Start starts it again, with
// crash recovery.
func (c *Cluster) Kill() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return fmt.Errorf("kill PostgreSQL: %w", errNotStarted)
	}
	if c.Shared {
		return fmt.Errorf("kill PostgreSQL: %w", errShared)
	}
	defer c.give()
	return c.server.kill()
}

// Wait returns when the server has ended without having been asked to, with
// its last words; nil once the cluster is stopped, and ctx's error.
func (c *Cluster) Wait(ctx context.Context) error {
	for {
		c.mu.Lock()
		server := c.server
		c.mu.Unlock()
		if server == nil {
			return nil
		}
		if err := server.awaitExit(ctx); err != nil {
			return err
		}
		c.mu.Lock() // Stop, Restart and Kill hold it until they are done
		unasked := c.server == server
		c.mu.Unlock()
		if unasked {
			return fmt.Errorf("PostgreSQL in %s has ended%s", c.Dir, lastLines(c.logFile()))
		}
	}
}

func (c *Cluster) findPrograms(ctx context.Context) (Programs, error) {
	if c.BinDir == "" {
		return Find(ctx)
	}
	programs, err := inspect(ctx, c.BinDir)
	if err != nil {
		err = fmt.Errorf("%w (%w)", ErrNotFound, err)
	}
	return programs, err
}

func (c *Cluster) give() {
	c.lock.release()
	c.lock, c.server = nil, nil
}

func (c *Cluster) say(format string, args ...any) {
	if c.Progress != nil {
		c.Progress(fmt.Sprintf(format, args...))
	}
}
