package cluster

import (
	"cmp"
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

// DefaultDir creates a directory with the name and returns its path. The path is rowcast/name in the user's cache
// directory. If that directory cannot be used, for example because the server's user cannot enter it, the path is below
// /var/cache or /var/tmp. DefaultDir never returns a directory that another user owns or can write to.
func DefaultDir(name string) (string, error) {
	server, err := serverAccount("")
	if err != nil {
		return "", err
	}
	bases := []string{"/var/cache/rowcast", "/var/tmp/rowcast-" + strconv.Itoa(os.Geteuid())}
	if cache, err := os.UserCacheDir(); err == nil {
		bases = append([]string{filepath.Join(cache, "rowcast")}, bases...)
	}
	var failures error
	for _, base := range bases {
		dir, err := makeDir(filepath.Join(base, name), server)
		if err == nil {
			return dir, nil
		}
		failures = errors.Join(failures, err)
	}
	return "", fmt.Errorf("choose a directory: %w", failures)
}

// makeDir creates a directory, unless it exists, and returns its path without symbolic links. It refuses a symbolic
// link, a directory that another user owns or can write to, and a directory that the server's user cannot enter. For
// root, it also checks each directory above, whose owner could replace the directory. A directory above may be writable
// by others if its sticky bit is set, because others cannot rename the files of root there.
func makeDir(path string, server account) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	mode := fs.FileMode(0o700)
	if server.other {
		mode = 0o755
	}
	if err := makeAll(path, mode); err != nil {
		return "", err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	path = filepath.Join(parent, filepath.Base(path))
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		switch {
		case err != nil:
			return "", err
		case !info.IsDir():
			return "", fmt.Errorf("%s is not a directory", dir)
		case ownerOf(info) != os.Geteuid():
			return "", fmt.Errorf("%s belongs to another user (id %d)", dir, ownerOf(info))
		case info.Mode().Perm()&0o022 != 0 && (dir == path || info.Mode()&fs.ModeSticky == 0):
			return "", fmt.Errorf("%s can be written by others (mode %04o)", dir, info.Mode().Perm())
		case os.Geteuid() != 0:
			return path, nil
		case dir == filepath.Dir(dir):
			if err := server.command(context.Background(), "test", "-x", path).Run(); err != nil {
				return "", fmt.Errorf("user %d, which runs the server, cannot enter %s: choose another directory", server.uid, path)
			}
			return path, nil
		}
	}
}

// makeAll creates a directory and the directories above it, unless they exist. It ignores the umask.
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

// socketDir returns the directory of the socket. It is in Dir, or in /tmp if the path of the socket would be longer
// than 103 bytes, the limit on macOS.
func (c *Cluster) socketDir() string {
	dir := filepath.Join(c.dir, "run")
	if len(dir+"/.s.PGSQL.65535") <= 103 {
		return dir
	}
	sum := sha256.Sum256([]byte(c.dir))
	return "/tmp/rowcast-" + hex.EncodeToString(sum[:6])
}

// makeSocketDir creates the directory of the socket, unless an earlier run has created it. Only the server's user and
// root can enter it.
func (c *Cluster) makeSocketDir() error {
	dir := c.socketDir()
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		return c.account.own(dir)
	}
	if info, statErr := os.Lstat(dir); statErr == nil && info.Mode() == fs.ModeDir|0o700 && ownerOf(info) == c.account.uid {
		return nil
	}
	return err
}

// lock locks a directory until unlock is called or the process ends. If the directory is locked already and
// wait is false, lock returns ErrInUse. If wait is true, lock waits until the directory is unlocked or ctx ends.
func lock(ctx context.Context, dir string, wait bool) (unlock func(), err error) {
	file, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = lockFile(file)
	for wait && errors.Is(err, ErrInUse) && ctx.Err() == nil {
		time.Sleep(20 * time.Millisecond)
		err = lockFile(file)
	}
	if err != nil {
		file.Close()
		return nil, cmp.Or(ctx.Err(), err)
	}
	return func() {
		unlockFile(file)
		file.Close()
	}, nil
}
