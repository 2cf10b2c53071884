package cluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
)

// account is the user that the server runs as.
type account struct {
	uid, gid int
	other    bool // the server's user is not the user of this process
}

// serverAccount returns the user of this process, or an unprivileged user if this process is root. For root, if dir
// already has data, serverAccount prefers the owner of the data, because a user postgres may have been created later.
func serverAccount(dir string) (account, error) {
	if !supported {
		return account{}, ErrUnsupported
	}
	if os.Geteuid() != 0 {
		return account{uid: os.Geteuid(), gid: os.Getegid()}, nil
	}
	names := []string{"postgres", "_postgres", "nobody"}
	if info, err := os.Stat(filepath.Join(dir, "data")); err == nil && ownerOf(info) != 0 {
		if u, err := user.LookupId(strconv.Itoa(ownerOf(info))); err == nil {
			names = append([]string{u.Username}, names...)
		}
	}
	for _, name := range names {
		if u, err := user.Lookup(name); err == nil {
			uid, uidErr := strconv.ParseInt(u.Uid, 10, 64) // on macOS, the id of nobody is "-2", and system calls need 4294967294
			gid, gidErr := strconv.ParseInt(u.Gid, 10, 64)
			return account{uid: int(uint32(uid)), gid: int(uint32(gid)), other: true}, errors.Join(uidErr, gidErr)
		}
	}
	return account{}, errors.New("PostgreSQL refuses to run as root, and there is no user postgres or nobody")
}

// command prepares a program that runs as the account until ctx ends. The environment is almost empty, because
// variables such as PGOPTIONS would change the result and the account must not read secrets of root.
func (a account) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.SysProcAttr = "/", attributes(a)
	cmd.Env = []string{"LC_ALL=C"} // without LC_ALL, PostgreSQL does not start on macOS
	for _, name := range []string{"PATH", "TZ", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"} {
		if value, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	return cmd
}

// own makes the account the owner of a new directory and its content. The directory comes last, so that the account
// cannot replace a file meanwhile.
func (a account) own(dir string) error {
	if !a.other {
		return nil
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		return os.Lchown(path, a.uid, a.gid)
	})
	return errors.Join(err, os.Lchown(dir, a.uid, a.gid))
}
