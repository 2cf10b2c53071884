package torture_test

import (
	"os/exec"
	"syscall"
)

// dieWithTest lets no hub outlive a test that was killed. It is the end of the thread that counts, from which the process was started.
func dieWithTest(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
