package cluster

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// initialize makes the data directory unless there is one. It is filled under
// another name, so that a half-filled one is never taken for whole.
func (c *Cluster) initialize(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if err == nil {
		return c.checkVersion(strings.TrimSpace(string(version)))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Lstat(c.data()); err == nil {
		return fmt.Errorf("%s holds no PostgreSQL data; start afresh (--fresh)", c.data())
	}
	unfinished, err := c.makeUnfinished()
	if err != nil {
		return err
	}
	if err := c.fill(ctx, unfinished); err != nil {
		return errors.Join(err, os.RemoveAll(unfinished))
	}
	return os.Rename(unfinished, c.data())
}

// makeUnfinished makes a directory to fill, under a new name each time: the
// initdb of a killed owner may still be filling another.
func (c *Cluster) makeUnfinished() (string, error) {
	old, err := filepath.Glob(filepath.Join(c.dir, "new-*"))
	for _, dir := range old {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(c.dir, "new-")
	if err != nil {
		return "", err
	}
	return dir, c.account.own(dir)
}

func (c *Cluster) checkVersion(major string) error {
	if major == strconv.Itoa(c.programs.Major) {
		return nil
	}
	return fmt.Errorf("%w: the data are of PostgreSQL %s, the programs in %s are %s; install PostgreSQL %s, or start afresh (--fresh), which deletes the data",
		ErrOtherVersion, major, c.programs.Dir, c.programs.Version, major)
}

// makeEmpty makes an empty directory for the server's user.
func (c *Cluster) makeEmpty(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return c.account.own(dir)
}

func (c *Cluster) fill(ctx context.Context, data string) error {
	switch {
	case c.Primary != nil:
		c.say("copying the primary's files to %s", c.dir)
		return c.backup(ctx, data)
	case c.Template != "":
		return c.copyTemplate(ctx, data)
	default:
		c.say("making a new database cluster in %s", c.dir)
		return c.initdb(ctx, data)
	}
}

// initdb lets everybody in who gets at the socket, for its directory keeps
// others out, and asks for the password on TCP, where everybody gets.
func (c *Cluster) initdb(ctx context.Context, data string) error {
	if err := c.savePassword(rand.Text()); err != nil {
		return err
	}
	handover := c.passwordFile() + ".initdb"
	if err := c.writeFor(handover, c.password()); err != nil {
		return err
	}
	defer os.Remove(handover)
	args := []string{
		"--pgdata=" + data, "--username=" + superuser, "--pwfile=" + handover,
		"--auth-local=trust", "--auth-host=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync",
	}
	return c.tool(ctx, "initdb", append(args, c.InitArgs...)...)
}

func (c *Cluster) copyTemplate(ctx context.Context, data string) error {
	password, err := os.ReadFile(filepath.Join(c.Template, "password"))
	if err != nil {
		return fmt.Errorf("read the template: %w", err)
	}
	if err := c.savePassword(string(password)); err != nil {
		return err
	}
	// By a program, as only the server's user should write there.
	return run(ctx, c.account.command("cp", "-R", filepath.Join(c.Template, "data")+"/.", data))
}

func (c *Cluster) savePassword(password string) error {
	if err := os.Remove(c.passwordFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(c.passwordFile(), []byte(password), 0o600)
}

// writeFor makes a file that only the server's user (and root) can read.
func (c *Cluster) writeFor(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	return c.account.own(path)
}

// removeFiles removes what initialize made.
func (c *Cluster) removeFiles() error {
	unfinished, err := filepath.Glob(filepath.Join(c.dir, "new-*"))
	if err != nil {
		return err
	}
	for _, path := range append(unfinished, c.data(), c.passwordFile(), c.logFile()) {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes Dir and what a Cluster has put there. It fails with ErrInUse while the
// cluster is started, here or elsewhere; a server that a dead owner left
// behind is stopped first.
func (c *Cluster) Remove(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.remove(ctx); err != nil {
		return fmt.Errorf("remove the files of PostgreSQL in %s: %w", c.Dir, err)
	}
	return nil
}

func (c *Cluster) remove(ctx context.Context) error {
	if c.Dir == "" {
		return errNoDir
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if c.dir, err = filepath.EvalSymlinks(dir); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	lock, err := acquire(ctx, c.dir, false)
	if err != nil {
		return err
	}
	defer lock.release()
	if _, err := c.join(ctx, true); err != nil {
		return err
	}
	c.removeSocketDir()
	if err := c.removeFiles(); err != nil {
		return err
	}
	for _, name := range []string{"port", "run", "gate", "lock"} {
		if err := os.RemoveAll(filepath.Join(c.dir, name)); err != nil {
			return err
		}
	}
	return os.Remove(c.dir) // not what others have put there
}

// Init makes the files without starting the server, for use as a Template.
// It does nothing if they exist.
func (c *Cluster) Init(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.init(ctx); err != nil {
		return fmt.Errorf("make a database cluster in %s: %w", c.Dir, err)
	}
	return nil
}

func (c *Cluster) init(ctx context.Context) error {
	if err := c.prepare(ctx); err != nil {
		return err
	}
	lock, err := acquire(ctx, c.dir, c.Shared)
	if err != nil {
		return err
	}
	defer lock.release()
	return c.initialize(ctx)
}

// tool runs one of PostgreSQL's programs as the server's user.
func (c *Cluster) tool(ctx context.Context, name string, args ...string) error {
	return run(ctx, c.account.command(filepath.Join(c.programs.Dir, name), args...))
}

func run(ctx context.Context, cmd *exec.Cmd) error {
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	defer stop()
	if err := cmd.Wait(); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return fmt.Errorf("run %s: %w%s", filepath.Base(cmd.Path), err, quote(output.String()))
	}
	return nil
}
