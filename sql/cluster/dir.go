package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// DefaultDir creates a directory with the name and returns its path. The path is
// rowcast/name in the user's cache directory. If that directory cannot be used,
// for example because the server's user cannot enter it, the path is below
// /var/cache (for root) or /var/tmp. DefaultDir never returns a directory that
// another user owns or can write to.
func DefaultDir(name string) (string, error) {
	server, err := serverAccount("")
	if err != nil {
		return "", err
	}
	var bases []string
	if cache, err := os.UserCacheDir(); err == nil {
		bases = append(bases, filepath.Join(cache, "rowcast"))
	}
	if server.other {
		bases = append(bases, "/var/cache/rowcast")
	}
	var failures error
	for _, base := range append(bases, "/var/tmp/rowcast-"+strconv.Itoa(os.Geteuid())) {
		dir, err := makeDir(filepath.Join(base, name), server)
		if err == nil {
			return dir, nil
		}
		failures = errors.Join(failures, err)
	}
	return "", fmt.Errorf("choose a directory: %w", failures)
}

// makeDir creates a directory, unless it exists, and returns its path without
// symbolic links. It refuses a symbolic link, a directory that another user owns
// or can write to, and a directory that the server's user cannot enter.
func makeDir(path string, server account) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if err := makeAll(path, dirMode(server)); err != nil {
		return "", err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is not a directory", path)
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	if err := checkOwner(path); err != nil {
		return "", err
	}
	return path, server.mayEnter(path)
}

// dirMode returns the mode of new directories. The server's user must be able to
// enter the directories that root creates.
func dirMode(server account) fs.FileMode {
	if server.other {
		return 0o755
	}
	return 0o700
}

// makeAll creates a directory and the directories above it, unless they exist.
// It ignores the umask.
func makeAll(path string, mode fs.FileMode) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := makeAll(filepath.Dir(path), mode); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Chmod(path, mode)
}

// checkOwner returns an error if another user owns a directory or can write to
// it. For root, it also checks each directory above, whose owner could replace
// the directory. A directory above may be writable by others if its
// sticky bit is set, because others cannot rename the files of root there.
func checkOwner(path string) error {
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if ownerOf(info) != os.Geteuid() {
			return fmt.Errorf("%s belongs to another user (id %d)", dir, ownerOf(info))
		}
		if info.Mode().Perm()&0o022 != 0 && (dir == path || info.Mode()&fs.ModeSticky == 0) {
			return fmt.Errorf("%s can be written by others (mode %04o)", dir, info.Mode().Perm())
		}
		if os.Geteuid() != 0 || dir == filepath.Dir(dir) {
			return nil
		}
	}
}

// socketDir returns the directory of the socket. It is in Dir, or in /tmp if
// the path of the socket would be longer than 103 bytes, the limit on macOS.
func (c *Cluster) socketDir() string {
	dir := filepath.Join(c.dir, "run")
	if len(dir+"/.s.PGSQL.65535") <= 103 {
		return dir
	}
	sum := sha256.Sum256([]byte(c.dir))
	return "/tmp/rowcast-" + hex.EncodeToString(sum[:6])
}

// makeSocketDir creates the directory of the socket. Only the server's user and
// root can enter it.
func (c *Cluster) makeSocketDir() error {
	dir := c.socketDir()
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return c.account.own(dir)
	}
	info, statErr := os.Lstat(dir)
	if statErr == nil && info.Mode() == fs.ModeDir|0o700 && ownerOf(info) == c.account.uid {
		return nil // an earlier run has created it
	}
	return err
}

// tryLock locks a directory, or returns ErrInUse. The kernel unlocks it when the
// process ends.
func tryLock(dir string) (*os.File, error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	err = lockFile(file)
	if err == nil {
		return file, nil
	}
	file.Close()
	if errors.Is(err, ErrInUse) {
		return nil, err
	}
	return nil, fmt.Errorf("lock %s: %w", file.Name(), err)
}

// awaitLock waits until it can lock a directory, or until ctx ends.
func awaitLock(ctx context.Context, dir string) (*os.File, error) {
	for {
		file, err := tryLock(dir)
		if !errors.Is(err, ErrInUse) {
			return file, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the lock of %s: %w", dir, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// unlock unlocks a directory. It does nothing if file is nil.
func unlock(file *os.File) {
	if file != nil {
		unlockFile(file)
		file.Close()
	}
}
