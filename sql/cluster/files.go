package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// initialize creates the data directory if there is none. It fills the directory
// under another name first, so an incomplete directory is never used.
func (c *Cluster) initialize(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if err == nil {
		return c.checkVersion(strings.TrimSpace(string(version)))
	}
	incomplete, _ := filepath.Glob(filepath.Join(c.dir, "new-*"))
	for _, dir := range incomplete {
		_ = os.RemoveAll(dir) // the initdb of a killed process may still write there
	}
	dir, err := os.MkdirTemp(c.dir, "new-")
	if err != nil {
		return err
	}
	if err := c.fill(ctx, dir); err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	return os.Rename(dir, c.data())
}

func (c *Cluster) checkVersion(major string) error {
	if major == strconv.Itoa(c.Programs.Major) {
		return nil
	}
	return fmt.Errorf("the data were created by PostgreSQL %s, and the programs in %s have version %s: install PostgreSQL %s, or delete the data with --fresh",
		major, c.Programs.Dir, c.Programs.Version, major)
}

// fill creates the files in an empty directory that only this process can enter,
// and makes the server's user their owner.
func (c *Cluster) fill(ctx context.Context, dir string) error {
	switch {
	case c.Primary != nil:
		if err := c.Primary.backup(ctx, dir); err != nil {
			return fmt.Errorf("back up the primary: %w", err)
		}
	case c.Template != "":
		if err := c.copyTemplate(ctx, dir); err != nil {
			return fmt.Errorf("copy the files in %s: %w", c.Template, err)
		}
	default:
		return c.initdb(ctx, dir)
	}
	return c.account.ownAll(dir)
}

// initdb creates new files. Every user who can enter the directory of the socket
// may connect. Roles need a password on TCP.
func (c *Cluster) initdb(ctx context.Context, dir string) error {
	c.report("creating a new database cluster in %s", c.dir)
	if err := c.account.own(dir); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + dir, "--username=" + superuser, "--auth-local=trust", "--auth-host=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync",
	}
	_, err := run(ctx, c.account.command(ctx, c.program("initdb"), append(args, c.InitArgs...)...))
	return err
}

// copyTemplate copies the files of the template. If there are none, it creates
// them first.
func (c *Cluster) copyTemplate(ctx context.Context, dir string) error {
	path, err := makeDir(c.Template, c.account)
	if err != nil {
		return err
	}
	lock, err := awaitLock(ctx, path)
	if err != nil {
		return err
	}
	defer unlock(lock)
	template := &Cluster{Programs: c.Programs, InitArgs: c.InitArgs, Progress: c.Progress, dir: path, account: c.account}
	if err := template.initialize(ctx); err != nil {
		return err
	}
	return copyFiles(template.data(), dir, nil)
}

// backup makes a base backup of the running server, for a standby. It uses SQL,
// because pg_basebackup is not installed with every server:
// https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
func (c *Cluster) backup(ctx context.Context, dir string) error {
	conn, err := pgx.Connect(ctx, c.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	start, stop := "SELECT pg_backup_start('standby', true)", "SELECT labelfile FROM pg_backup_stop(false)"
	if c.Programs.Major < 15 {
		start, stop = "SELECT pg_start_backup('standby', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, start); err != nil {
		return err
	}
	if err := copyFiles(c.data(), dir, notInBackup); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	// Only now does the WAL contain everything that makes the copies consistent.
	if err := copyFiles(filepath.Join(c.data(), "pg_wal"), filepath.Join(dir, "pg_wal"), nil); err != nil {
		return err
	}
	// primary_conninfo is in this file and not on the command line, because
	// tests change it with ALTER SYSTEM.
	conf := filepath.Join(dir, "postgresql.auto.conf")
	settings, err := os.ReadFile(conf)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(conf, fmt.Appendf(settings, "primary_conninfo = '%s'\n", c.DSN("")), 0o600),
		os.WriteFile(filepath.Join(dir, "backup_label"), []byte(label), 0o600),
		os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600))
}

// notInBackup reports whether a file belongs to the WAL, to a replication slot or
// to the running server.
func notInBackup(name string) bool {
	return strings.HasPrefix(name, "pg_wal/") || strings.HasPrefix(name, "pg_replslot/") || strings.HasPrefix(name, "postmaster.")
}

// copyFiles copies a directory. It omits the files for which leaveOut returns
// true, and files that the server removes meanwhile. It follows no symbolic link
// out of the directory, because the server's user could create one that makes
// root read another file.
func copyFiles(source, target string, leaveOut func(name string) bool) error {
	root, err := os.OpenRoot(source)
	if err != nil {
		return err
	}
	defer root.Close()
	return fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return ignoreMissing(err)
		case leaveOut != nil && leaveOut(name):
			return nil
		case entry.IsDir():
			return os.MkdirAll(filepath.Join(target, name), 0o700)
		default:
			return ignoreMissing(copyFile(root, name, filepath.Join(target, name)))
		}
	})
}

func copyFile(source *os.Root, name, target string) error {
	content, err := source.ReadFile(name)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(target, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // follows no symbolic link
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	return errors.Join(err, file.Close())
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// run runs a program, which was created with ctx, to its end and returns its
// output.
func run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	output, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w%s", cmd.Path, cmp.Or(ctx.Err(), err), quote(output))
	}
	return output, nil
}
