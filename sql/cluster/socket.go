package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// maxSocketPath is the longest name of a Unix socket that all systems take:
// 104 bytes with the closing NUL on macOS and the BSDs, 108 on Linux.
const maxSocketPath = 103

// makeSocketDir makes the directory of the socket, which nobody but us and the
// server's user can enter. It is Dir/run, or, where the socket's name would be
// too long for the system, a short one to which Dir/run is a link.
func (c *Cluster) makeSocketDir() (string, error) {
	link := c.runLink()
	if target, err := os.Readlink(link); err == nil && c.isSocketDir(target) {
		return target, nil
	}
	if err := os.RemoveAll(link); err != nil {
		return "", err
	}
	if len(filepath.Join(link, ".s.PGSQL.65535")) <= maxSocketPath {
		return link, c.makeEmpty(link)
	}
	short, err := c.makeShortDir()
	if err != nil {
		return "", err
	}
	return short, os.Symlink(short, link)
}

// makeShortDir makes the directory in /tmp that is this Dir's, so that the
// connection string stays the same; if another user has that name, any.
func (c *Cluster) makeShortDir() (string, error) {
	sum := sha256.Sum256([]byte(c.dir))
	short := "/tmp/rowcast-" + hex.EncodeToString(sum[:6])
	err := os.Mkdir(short, 0o700)
	if errors.Is(err, fs.ErrExist) {
		if c.isSocketDir(short) {
			return short, nil
		}
		short, err = os.MkdirTemp("/tmp", "rowcast-")
	}
	if err != nil {
		return "", err
	}
	return short, c.account.own(short)
}

func (c *Cluster) isSocketDir(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode() == fs.ModeDir|0o700 && ownerOf(info) == c.account.uid
}

// removeSocketDir removes what makeSocketDir made outside of Dir.
func (c *Cluster) removeSocketDir() {
	target, err := os.Readlink(c.runLink())
	if err != nil || filepath.Dir(target) != "/tmp" {
		return
	}
	_ = os.Remove(target) // empty, as the server takes its socket away
	_ = os.Remove(c.runLink())
}
