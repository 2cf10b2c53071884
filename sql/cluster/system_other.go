//go:build !unix

package cluster

import (
	"io/fs"
	"os"
	"syscall"
)

// supported is false: a Cluster needs Unix sockets, owners of files, and
// signals. Start, DefaultDir and Obtain fail before they call one of
// the functions below.
const supported = false

const noFollow = 0

func ownerOf(fs.FileInfo) int              { return 0 }
func runAs(*syscall.SysProcAttr, int, int) {}
func ownSession(*syscall.SysProcAttr)      {}
func lockFile(*os.File) error              { return ErrUnsupported }
func unlockFile(*os.File)                  {}
func exists(int) bool                      { return false }
func suspend(*os.Process) error            { return ErrUnsupported }
func killChildren(int) error               { return ErrUnsupported }
