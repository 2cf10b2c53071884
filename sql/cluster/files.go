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
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// initialize creates the data directory if there is none. It fills the directory under another name first, so an
// incomplete directory is never used.
func (c *Cluster) initialize(ctx context.Context) error {
	version, err := os.ReadFile(filepath.Join(c.data(), "PG_VERSION"))
	if major := strings.TrimSpace(string(version)); err == nil && major != strconv.Itoa(c.Programs.Major) {
		return fmt.Errorf("%w: they were created by version %s, and the programs in %s have version %s", ErrOtherVersion, major, c.Programs.Dir, c.Programs.Version)
	}
	if err == nil {
		return nil
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

// fill creates the files in an empty directory that only the user of this process can enter, and makes the server's
// user their owner. The arguments of initdb make the server require a password over TCP, but not over the socket, whose
// directory other users cannot enter.
func (c *Cluster) fill(ctx context.Context, dir string) error {
	switch {
	case c.Primary != nil:
		return errors.Join(c.Primary.backup(ctx, dir), c.account.own(dir))
	case c.Template != "":
		return errors.Join(c.copyTemplate(ctx, dir), c.account.own(dir))
	}
	c.report("creating a new database cluster in %s", c.dir)
	if err := c.account.own(dir); err != nil {
		return err
	}
	args := []string{
		"--pgdata=" + dir, "--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync",
	}
	_, err := run(ctx, c.account.command(ctx, filepath.Join(c.Programs.Dir, "initdb"), append(args, c.InitArgs...)...))
	return err
}

// copyTemplate copies the files of the template. If there are none, it creates them first.
func (c *Cluster) copyTemplate(ctx context.Context, dir string) error {
	path, err := makeDir(c.Template, c.account)
	if err != nil {
		return err
	}
	unlock, err := lock(ctx, path, true)
	if err != nil {
		return err
	}
	defer unlock()
	template := &Cluster{Programs: c.Programs, InitArgs: c.InitArgs, Progress: c.Progress, dir: path, account: c.account}
	if err := template.initialize(ctx); err != nil {
		return err
	}
	return copyFiles(template.data(), dir)
}

// backup makes a base backup of the running server, for a standby. It uses SQL, because pg_basebackup is not installed
// with every server: https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
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
	// Leave out the WAL, the replication slots and the files of the running server.
	if err := copyFiles(c.data(), dir, "pg_wal/", "pg_replslot/", "postmaster."); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	// Only now does the WAL contain everything that makes the copies consistent.
	if err := copyFiles(filepath.Join(c.data(), "pg_wal"), filepath.Join(dir, "pg_wal")); err != nil {
		return err
	}
	// primary_conninfo is in this file and not on the command line, because tests change it with ALTER SYSTEM.
	conf := filepath.Join(dir, "postgresql.auto.conf")
	settings, err := os.ReadFile(conf)
	return errors.Join(err,
		os.WriteFile(conf, fmt.Appendf(settings, "primary_conninfo = '%s'\n", c.DSN("")), 0o600),
		os.WriteFile(filepath.Join(dir, "backup_label"), []byte(label), 0o600),
		os.WriteFile(filepath.Join(dir, "standby.signal"), nil, 0o600))
}

// copyFiles copies a directory. It omits the files whose paths in the directory begin with a prefix in leaveOut, and
// files that the server removes meanwhile. It follows no symbolic link out of the two directories, because the server's
// user could create one that makes root read or overwrite another file.
func copyFiles(source, target string, leaveOut ...string) error {
	from, err := os.OpenRoot(source)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenRoot(target)
	if err != nil {
		return err
	}
	defer to.Close()
	return fs.WalkDir(from.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		var content []byte
		switch {
		case err != nil:
		case slices.ContainsFunc(leaveOut, func(prefix string) bool { return strings.HasPrefix(name, prefix) }):
		case entry.IsDir():
			err = to.MkdirAll(name, 0o700)
		default:
			if content, err = from.ReadFile(name); err == nil {
				err = to.WriteFile(name, content, 0o600)
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// run runs cmd, which must have been created with ctx, to its end and returns its output.
func run(ctx context.Context, cmd *exec.Cmd) ([]byte, error) {
	output, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("run %s: %w%s", cmd.Path, cmp.Or(ctx.Err(), err), quote(output))
	}
	return output, nil
}
