//go:build !unix

package dbtest

import (
	"errors"
	"io/fs"
	"os/exec"
)

// On this system, the functions below only satisfy the compiler. The tests that call them need a PostgreSQL server,
// which package cluster cannot start here.

func Suspend(int) error                { return errors.ErrUnsupported }
func Resume(int) error                 { return errors.ErrUnsupported }
func Running(int) bool                 { return false }
func Owner(fs.FileInfo) (uid, gid int) { return -1, -1 }
func RunAs(_ *exec.Cmd, _, _ int)      {}
