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

// patience is the longest time that stop waits after a signal before it sends the next one. It is also the time for
// which run tries to start a server while sessions of a killed server remain.
const patience = 20 * time.Second

// server is a postmaster that this process has started.
type server struct {
	process *os.Process
	exited  chan struct{} // closed when the process has ended
}

// spawn starts a server. On Linux, the kernel stops the server when the thread that started it ends (dieWithParent), so
// the thread must exist as long as the server.
func spawn(cmd *exec.Cmd, logFile string) (*server, error) {
	log, err := os.OpenFile(logFile, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	dieWithParent(cmd.SysProcAttr)
	s := &server{exited: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(s.exited)
		err := cmd.Start()
		s.process = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // the log contains the reason
		}
	}()
	return s, <-started
}

// awaitReady returns when the server accepts connections. It returns an error if the server or ctx ends first.
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

// stop sends the signal mode to the server and waits until the server ends. If ctx or patience ends first, stop sends
// the next signal: SIGQUIT, then SIGKILL.
func (s *server) stop(ctx context.Context, mode Mode) error {
	for _, signal := range []syscall.Signal{mode, syscall.SIGQUIT, syscall.SIGKILL} {
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

// killChildren kills the sessions and the other children of the server. It suspends the server first, because the
// server would replace them. A child may end before it is killed, so the exit code of the second kill is ignored.
func (s *server) killChildren(ctx context.Context) error {
	const script = `set -e
kill -STOP $0
children=$(cat /proc/$0/task/$0/children 2>/dev/null || pgrep -P $0)
kill -KILL $children || :`
	_, err := run(ctx, exec.CommandContext(ctx, "sh", "-c", script, strconv.Itoa(s.process.Pid)))
	return err
}

// stopLeftover stops a server that still runs because the program that started it was killed. The server stops as in a
// crash. If another program now has the process id in the pid file, stopLeftover only removes the file. With the file,
// PostgreSQL would not start if that program runs as the same user.
func (c *Cluster) stopLeftover(ctx context.Context) error {
	pid, _ := readPIDFile(c.data())
	exists, serves := examine(pid, c.data())
	switch {
	case pid == 0 || !exists:
		return nil // PostgreSQL ignores the file of a process that has ended
	case !serves:
		_ = os.Remove(pidFile(c.data())) // the server may have removed it
		return nil
	}
	c.report("stopping the server that an earlier run left behind")
	process, err := os.FindProcess(pid)
	for ; err == nil && serves; _, serves = examine(pid, c.data()) {
		_ = process.Signal(syscall.SIGQUIT) // the server may have ended
		select {
		case <-ctx.Done():
			err = fmt.Errorf("stop the server of an earlier run (pid %d): %w", pid, ctx.Err())
		case <-time.After(10 * time.Millisecond): // only the parent of a process can wait for its end
		}
	}
	return err
}

// examine reports whether a process exists, and whether it is a PostgreSQL server with this data directory.
func examine(pid int, data string) (exists, serves bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil { // not Linux, or there is no such process
		text, err = exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
	}
	line := strings.ReplaceAll(string(text), "\x00", " ")
	return err == nil, strings.Contains(line, "postgres -D "+data+" ")
}

func pidFile(data string) string { return filepath.Join(data, "postmaster.pid") }

// readPIDFile returns the process id of a server, or 0 if there is no file. It also reports whether the server accepts
// connections. PostgreSQL describes the lines of the file in src/include/utils/pidfile.h.
func readPIDFile(data string) (pid int, ready bool) {
	text, _ := os.ReadFile(pidFile(data))
	_, _ = fmt.Sscan(string(text), &pid)
	return pid, strings.HasSuffix(strings.TrimSpace(string(text)), "\nready")
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
