//go:build !unix

package cluster

import (
	"io/fs"
	"os"
	"syscall"
)

// supported is false: a Cluster needs Unix sockets, owners of files, and signals. Start and DefaultDir fail before they
// call one of the functions below.
const supported = false

func ownerOf(fs.FileInfo) int                 { return 0 }
func attributes(account) *syscall.SysProcAttr { return nil }
func lockFile(*os.File) error                 { return ErrUnsupported }
func unlockFile(*os.File)                     {}
