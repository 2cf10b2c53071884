package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// account is the user that the server runs as.
type account struct {
	name     string
	uid, gid int
	other    bool // it is not the user of this process
}

// serverAccount chooses the server's user: the one of this process, or, when
// that is root, an unprivileged one. Files that already exist decide, so that
// a user postgres that came later does not lose those of nobody.
func serverAccount(dir string) (account, error) {
	if os.Geteuid() != 0 {
		return account{name: "the current user", uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	names := []string{"postgres", "_postgres", "nobody"}
	if info, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		if owner := ownerOf(info); owner != 0 {
			if u, err := user.LookupId(strconv.Itoa(owner)); err == nil {
				names = append([]string{u.Username}, names...)
			}
		}
	}
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil {
			return parseAccount(u)
		}
	}
	return account{}, fmt.Errorf("find an unprivileged user for the server (PostgreSQL refuses root): none of %s exists", strings.Join(names, ", "))
}

func parseAccount(u *user.User) (account, error) {
	// macOS writes nobody as -2, the system calls take 4294967294.
	uid, err := strconv.ParseInt(u.Uid, 10, 64)
	if err != nil {
		return account{}, fmt.Errorf("read the user id of %s: %w", u.Username, err)
	}
	gid, err := strconv.ParseInt(u.Gid, 10, 64)
	if err != nil {
		return account{}, fmt.Errorf("read the group id of %s: %w", u.Username, err)
	}
	return account{name: u.Username, uid: int(uint32(uid)), gid: int(uint32(gid)), other: true}, nil
}

// command prepares a program to run as the account, in a directory that
// everybody may enter and with an environment that tells nothing: libpq's and
// the server's own PG variables would change what we ask for, and root's
// secrets are none of the account's business.
func (a account) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"LC_ALL=C"} // also: macOS refuses to start without
	for _, name := range []string{"PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if a.other {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return cmd
}

// own gives a file that was just made in a directory of ours to the account.
func (a account) own(path string) error {
	if !a.other {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// mayEnter tells whether the account can use path, by the mode bits of it and
// of all directories above it, and if not, which one keeps it out.
func (a account) mayEnter(path string) error {
	if !a.other {
		return nil
	}
	for dir := path; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		bit := os.FileMode(0o001)
		switch {
		case ownerOf(info) == a.uid:
			bit = 0o100
		case groupOf(info) == a.gid:
			bit = 0o010
		}
		if info.Mode()&bit == 0 {
			return fmt.Errorf("user %s cannot enter %s (mode %04o): choose another directory", a.name, dir, info.Mode().Perm())
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func ownerOf(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }
func groupOf(info os.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Gid) }
