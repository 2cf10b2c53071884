package torture_test

import (
	"os/exec"
	"syscall"
)

// dieWithTest makes the kernel kill a process when the thread that has started it ends, so that no hub outlives a test
// that was killed.
func dieWithTest(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
