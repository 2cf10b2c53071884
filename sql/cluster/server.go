package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// Mode is how a server is stopped.
type Mode int

const (
	// Fast cuts off the sessions, rolls back what they had open and writes
	// everything to the disk.
	Fast Mode = iota
	// Immediate ends all processes without writing anything: as a crash, the
	// next start recovers from the log.
	Immediate
)

// Shutdown signals: https://www.postgresql.org/docs/current/server-shutdown.html
func (m Mode) signal() syscall.Signal {
	if m == Immediate {
		return syscall.SIGQUIT
	}
	return syscall.SIGINT
}

// patience is how long a server may take to stop before it is told again,
// more rudely.
const patience = 20 * time.Second

// server is a running postmaster: our child, or one that another process
// started.
type server struct {
	process *os.Process
	data    string
	// Of a child only: closed when it has ended, and the reading end of a pipe
	// that all its processes hold open.
	exited chan struct{}
	life   *os.File
}

// spawn starts the server as a child. A bound one is stopped by the kernel
// when this process dies.
func spawn(cmd *exec.Cmd, data string, bound bool) (*server, error) {
	life, held, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	cmd.ExtraFiles = []*os.File{held}
	// A session of its own: Ctrl-C in the terminal is for us, who then stop
	// the server when nobody needs it any more.
	cmd.SysProcAttr.Setsid = true
	if bound {
		dieWithParent(cmd.SysProcAttr)
	}
	s := &server{data: data, exited: make(chan struct{}), life: life}
	started := make(chan error)
	go s.own(cmd, started)
	if err := <-started; err != nil {
		life.Close()
		return nil, err
	}
	return s, nil
}

// own starts the process and waits for it on one thread: the signal of
// dieWithParent is sent when the thread ends that started the process.
func (s *server) own(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	if err == nil {
		s.process = cmd.Process
	}
	started <- err
	if err != nil {
		return
	}
	_ = cmd.Wait() // how it ended is in its log
	close(s.exited)
}

// findServer returns the server that runs on the data directory, nil if none.
// A file that names a process which is not that server is made harmless.
func findServer(data string) (*server, error) {
	file, err := readPIDFile(data)
	if err != nil || file.pid == 0 {
		return nil, err
	}
	// The handle first, then the look: where the system has such handles, what
	// we signal later is the process that we looked at.
	process, err := os.FindProcess(file.pid)
	if err != nil {
		return nil, err
	}
	s := &server{process: process, data: data}
	if s.alive() {
		return s, nil
	}
	if errors.Is(syscall.Kill(file.pid, 0), syscall.ESRCH) {
		return nil, nil // PostgreSQL sees that by itself
	}
	// The pid was given to another program, and PostgreSQL would not start:
	// it asks only whether the process exists. It does pass over its parent's
	// pid, which is ours. The file must stay, for it names the shared memory
	// by which the new server finds sessions of the old one still running.
	return nil, overwritePID(data, os.Getpid())
}

// alive tells whether the process is there and a server on our directory.
func (s *server) alive() bool {
	if s.exited != nil {
		select {
		case <-s.exited:
			return false
		default:
			return true
		}
	}
	args := commandLine(s.process.Pid)
	at := slices.Index(args, "-D") + 1
	return at > 0 && at < len(args) && args[at] == s.data && filepath.Base(args[0]) == "postgres"
}

// awaitReady returns when the server accepts connections, which it says in
// its pid file (pg_ctl looks there too), or fails at once when it has ended.
func (s *server) awaitReady(ctx context.Context) error {
	for pause := newPause(); ; {
		file, err := readPIDFile(s.data)
		if err != nil {
			return err
		}
		if file.pid == s.process.Pid && file.status == "ready" {
			return nil
		}
		if !s.alive() {
			return errors.New("the server ended")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the server to accept connections: %w", ctx.Err())
		case <-s.exited:
		case <-pause.next():
		}
	}
}

// stop ends the server and waits for it, more and more rudely: by the mode,
// after ctx or some patience immediately, and in the end by force.
func (s *server) stop(ctx context.Context, mode Mode) error {
	defer s.close()
	for _, signal := range []syscall.Signal{mode.signal(), syscall.SIGQUIT, syscall.SIGKILL} {
		if err := s.signal(signal); err != nil {
			return err
		}
		limit, cancel := context.WithTimeout(ctx, patience)
		err := s.awaitExit(limit)
		cancel()
		if err == nil {
			return nil
		}
		ctx = context.WithoutCancel(ctx)
	}
	return fmt.Errorf("the server (pid %d) does not end", s.process.Pid)
}

// signal does nothing to a server that has ended.
func (s *server) signal(signal syscall.Signal) error {
	if !s.alive() {
		return nil
	}
	if err := s.process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal the server (pid %d): %w", s.process.Pid, err)
	}
	return nil
}

func (s *server) awaitExit(ctx context.Context) error {
	for pause := newPause(); s.alive(); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.exited:
			return nil
		case <-pause.next():
		}
	}
	return nil
}

// kill ends the postmaster and its children, and returns when the last of them
// has let go of the pipe.
func (s *server) kill() error {
	defer s.close()
	// Stopped, it can make no more children while we look.
	if err := s.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	victims, err := children(s.process.Pid)
	if err != nil {
		return err
	}
	for _, pid := range victims {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill a process of the server (pid %d): %w", pid, err)
		}
	}
	if err := s.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-s.exited
	if err := s.life.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, s.life); err != nil {
		return fmt.Errorf("wait for the killed server's processes: %w", err)
	}
	return nil
}

func (s *server) close() {
	if s.life != nil {
		s.life.Close()
	}
}

func (s *server) address() (address, error) {
	file, err := readPIDFile(s.data)
	return file.address, err
}
