package cluster

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// backup fills data with a base backup of the running primary. It is made by
// SQL, because pg_basebackup is not installed wherever the server programs are:
// https://www.postgresql.org/docs/current/continuous-archiving.html#BACKUP-LOWLEVEL-BASE-BACKUP
func (c *Cluster) backup(ctx context.Context, data string) error {
	if err := c.savePassword(c.Primary.password()); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, c.Primary.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var archive bytes.Buffer
	if err := c.archivePrimary(ctx, conn, &archive); err != nil {
		return fmt.Errorf("back up the primary: %w", err)
	}
	// By a program, as only the server's user should write there.
	unpack := c.account.command("tar", "-x", "-f", "-", "-C", data)
	unpack.Stdin = &archive
	return run(ctx, unpack)
}

func (c *Cluster) archivePrimary(ctx context.Context, conn *pgx.Conn, to *bytes.Buffer) error {
	start, stop := "SELECT pg_backup_start('standby', true)", "SELECT labelfile FROM pg_backup_stop(false)"
	if c.programs.Major < 15 {
		start, stop = "SELECT pg_start_backup('standby', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	archive := tar.NewWriter(to)
	if _, err := conn.Exec(ctx, start); err != nil {
		return err
	}
	if err := addFiles(archive, c.Primary.data(), func(name string) bool { return !inLog(name) && !ofRun(name) }); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	// After the stop the log holds all that makes the copied files consistent.
	if err := addFiles(archive, c.Primary.data(), inLog); err != nil {
		return err
	}
	settings, err := os.ReadFile(filepath.Join(c.Primary.data(), settingsFile))
	if err != nil {
		return err
	}
	return errors.Join(
		addFile(archive, "backup_label", []byte(label)),
		addFile(archive, "standby.signal", nil),
		addFile(archive, settingsFile, fmt.Appendf(settings, "primary_conninfo = '%s'\n", c.Primary.DSN(""))),
		archive.Close())
}

// settingsFile is where ALTER SYSTEM puts its settings.
const settingsFile = "postgresql.auto.conf"

// inLog reports whether a file belongs to the write-ahead log.
func inLog(name string) bool { return strings.HasPrefix(name, "pg_wal") }

// ofRun reports whether a file belongs to the running server and not to its data.
func ofRun(name string) bool {
	return strings.HasPrefix(name, "postmaster.") || strings.HasPrefix(name, "pg_replslot/") || name == settingsFile
}

// addFiles adds the wanted files and directories below root to an archive.
// Files that the server removes meanwhile are left out.
func addFiles(archive *tar.Writer, root string, wanted func(name string) bool) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		name, relErr := filepath.Rel(root, path)
		if err := errors.Join(err, relErr); err != nil {
			return ignoreMissing(err)
		}
		switch {
		case name == "." || !wanted(name):
			return nil
		case entry.IsDir():
			return archive.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o700})
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return ignoreMissing(err)
		}
		return addFile(archive, name, content)
	})
}

func addFile(archive *tar.Writer, name string, content []byte) error {
	err := archive.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: int64(len(content))})
	if err != nil {
		return err
	}
	_, err = archive.Write(content)
	return err
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
