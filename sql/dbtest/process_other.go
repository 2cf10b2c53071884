//go:build !unix

package dbtest

import (
	"errors"
	"io/fs"
	"os/exec"
)

// The tests that call these functions need a PostgreSQL, which package cluster
// cannot start on this system.

func Suspend(int) error                { return errors.ErrUnsupported }
func Resume(int) error                 { return errors.ErrUnsupported }
func Running(int) bool                 { return false }
func Owner(fs.FileInfo) (uid, gid int) { return -1, -1 }
func RunAs(_ *exec.Cmd, _, _ int)      {}
