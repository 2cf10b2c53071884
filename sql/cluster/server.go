package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// patience is how long stop waits after each signal before it sends the next
// one. It is also how long run keeps trying to start a server while sessions of
// a killed server remain.
const patience = 20 * time.Second

// server is a postmaster that this process or an earlier one has started.
type server struct {
	process *os.Process
	exited  chan struct{} // closed when the process has ended
}

// spawn starts a server in a session of its own, so that Ctrl-C in the terminal
// does not reach it.
func spawn(cmd *exec.Cmd, logFile string) (*server, error) {
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	ownSession(cmd.SysProcAttr)
	dieWithParent(cmd.SysProcAttr)
	s := &server{exited: make(chan struct{})}
	started := make(chan error)
	go s.wait(cmd, started)
	return s, <-started
}

// wait starts the process and waits for it on the same thread. Where
// dieWithParent has an effect, the kernel stops the process when the thread that
// started it ends, so the thread must exist as long as the process.
func (s *server) wait(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(s.exited)
	err := cmd.Start()
	s.process = cmd.Process
	started <- err
	if err == nil {
		_ = cmd.Wait() // the log contains the reason
	}
}

func (s *server) ended() bool {
	select {
	case <-s.exited:
		return true
	default:
		return false
	}
}

// awaitReady returns when the server accepts connections. It returns an error if
// the server or ctx ends first.
func (s *server) awaitReady(ctx context.Context, data string) error {
	for {
		if pid, ready := readPIDFile(data); pid == s.process.Pid && ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server to accept connections: %w", ctx.Err())
		case <-s.exited:
			return errors.New("the server ended")
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// stop sends the signal mode to the server and waits until the server ends. If
// ctx or patience ends first, stop sends the next signal: SIGQUIT, then SIGKILL.
func (s *server) stop(ctx context.Context, mode Mode) error {
	for _, signal := range []syscall.Signal{syscall.Signal(mode), syscall.SIGQUIT, syscall.SIGKILL} {
		if err := s.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal the server (pid %d): %w", s.process.Pid, err)
		}
		select {
		case <-s.exited:
			return nil
		case <-ctx.Done():
			ctx = context.WithoutCancel(ctx)
		case <-time.After(patience):
		}
	}
	return fmt.Errorf("the server (pid %d) does not end", s.process.Pid)
}

// kill ends the postmaster and its children. It suspends the postmaster first,
// because the postmaster must not start more children meanwhile.
func (s *server) kill() error {
	err := suspend(s.process)
	if err == nil {
		err = errors.Join(killChildren(s.process.Pid), s.stop(context.Background(), Mode(syscall.SIGKILL)))
	}
	if err != nil {
		return fmt.Errorf("kill the server (pid %d): %w", s.process.Pid, err)
	}
	return nil
}

// stopLeftover stops the server of a process that was killed. If another program
// has the process id of that server now, it only removes the server's pid file.
func (c *Cluster) stopLeftover(ctx context.Context) error {
	pid, _ := readPIDFile(c.data())
	if pid == 0 || !exists(pid) {
		return nil // PostgreSQL ignores the file of a process that has ended
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if !isServer(pid, c.data()) {
		// The pid belongs to another program. If that program runs as the same
		// user, PostgreSQL does not start while this file exists.
		return ignoreMissing(os.Remove(pidFile(c.data())))
	}
	c.report("stopping the server that an earlier run left behind")
	leftover := &server{process: process, exited: make(chan struct{})}
	go func() {
		for isServer(pid, c.data()) {
			time.Sleep(10 * time.Millisecond) // only the parent of a process can wait for its end
		}
		close(leftover.exited)
	}()
	return leftover.stop(ctx, Fast)
}

// isServer reports whether a process is a PostgreSQL server with this data
// directory.
func isServer(pid int, data string) bool {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return strings.Contains(string(text), "postgres\x00-D\x00"+data+"\x00")
	}
	text, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.Contains(string(text), "postgres -D "+data+" ")
}

func pidFile(data string) string { return filepath.Join(data, "postmaster.pid") }

// readPIDFile returns the process id of a server, or 0 if there is no file. It
// also reports whether the server accepts connections. PostgreSQL describes the
// lines of the file in src/include/utils/pidfile.h.
func readPIDFile(data string) (pid int, ready bool) {
	text, _ := os.ReadFile(pidFile(data))
	lines := strings.Split(string(text), "\n")
	pid, _ = strconv.Atoi(strings.TrimSpace(lines[0]))
	return pid, len(lines) > 7 && strings.TrimSpace(lines[7]) == "ready"
}

// lastLines returns the end of a log, to be appended to an error.
func lastLines(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return quote(text)
}

// quote returns the last lines of a program's output, to be appended to an error.
func quote(output []byte) string {
	const most = 12
	text := strings.TrimSpace(string(output))
	if text == "" {
		return " (without a message)"
	}
	lines := strings.Split(text, "\n")
	return ":\n\t" + strings.Join(lines[max(0, len(lines)-most):], "\n\t")
}
