//go:build !linux

package torture_test

import "os/exec"

// dieWithTest does nothing on systems without such a feature.
func dieWithTest(*exec.Cmd) {}
