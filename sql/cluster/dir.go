package cluster

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultDir returns the directory for the cluster of that name, made if it
// does not exist: rowcast/name in the user's cache directory, or, where that
// does not exist or the server's user cannot reach it (root's is closed to
// others), below /var/cache or /var/tmp. It never returns a directory that
// another user owns or can write to.
func DefaultDir(name string) (string, error) {
	if name == "" || name[0] == '.' || strings.ContainsRune(name, filepath.Separator) {
		return "", fmt.Errorf("choose a directory: bad name %q", name)
	}
	server, err := serverAccount("")
	if err != nil {
		return "", fmt.Errorf("choose a directory: %w", err)
	}
	var failures error
	for _, base := range bases() {
		dir, err := makeDir(filepath.Join(base, name), server)
		if err == nil {
			return dir, nil
		}
		failures = errors.Join(failures, err)
	}
	return "", fmt.Errorf("choose a directory: %w", failures)
}

func bases() []string {
	var dirs []string
	if cache, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, filepath.Join(cache, "rowcast"))
	}
	if os.Geteuid() == 0 {
		dirs = append(dirs, "/var/cache/rowcast")
	}
	return append(dirs, "/var/tmp/rowcast-"+strconv.Itoa(os.Geteuid()))
}

// makeDir makes sure that path is a directory of ours that nobody else can
// write to, and returns its name without symbolic links. For root, the server's
// user must be able to reach it, and nobody but root may be able to exchange a
// directory above it: he would choose what root overwrites.
func makeDir(path string, server account) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	mode := fs.FileMode(0o700)
	if server.other {
		mode = 0o755
	}
	if err := makeOwned(path, mode); err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	if !server.other {
		return path, nil
	}
	if err := trusted(filepath.Dir(path)); err != nil {
		return "", err
	}
	return path, server.mayEnter(path)
}

// makeOwned makes path and what lacks above it, and refuses one that exists
// but is a link, belongs to another user or can be written by others.
func makeOwned(path string, mode fs.FileMode) error {
	if _, err := os.Lstat(filepath.Dir(path)); errors.Is(err, fs.ErrNotExist) {
		if err := makeOwned(filepath.Dir(path), mode); err != nil {
			return err
		}
	}
	err := os.Mkdir(path, mode)
	if err == nil {
		return os.Chmod(path, mode) // the umask may have taken bits away
	}
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	info, err := os.Lstat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case ownerOf(info) != os.Geteuid():
		return fmt.Errorf("%s belongs to another user (id %d)", path, ownerOf(info))
	case info.Mode().Perm()&0o022 != 0:
		return fmt.Errorf("%s can be written by others (mode %04o)", path, info.Mode().Perm())
	}
	return nil
}

// trusted refuses a place that another user could exchange: each directory up
// to the root must be root's, and writable by others only where the sticky bit
// keeps them from renaming.
func trusted(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if owner := ownerOf(info); owner != 0 {
			return fmt.Errorf("%s belongs to another user (id %d)", dir, owner)
		}
		if info.Mode().Perm()&0o022 != 0 && info.Mode()&fs.ModeSticky == 0 {
			return fmt.Errorf("%s can be written by others (mode %04o)", dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
