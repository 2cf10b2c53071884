package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// lock is the ownership of a directory. The kernel gives it back when its
// process dies, however that happens.
//
// A directory has two lock files. An exclusive owner holds "lock" exclusively.
// Shared owners each hold it shared; they start, join and stop the server only
// while they hold "gate" exclusively, so that the question "am I alone?" has
// an answer that stays true until the server is up or down.
type lock struct {
	owner *os.File
	gate  *os.File // nil when open
	alone bool     // no other owner
}

func acquire(ctx context.Context, dir string, shared bool) (*lock, error) {
	l := &lock{}
	var err error
	if shared {
		if l.gate, err = closeGate(ctx, dir); err != nil {
			return nil, err
		}
	}
	if err := l.take(dir, shared); err != nil {
		l.release()
		return nil, err
	}
	return l, nil
}

func (l *lock) take(dir string, shared bool) (err error) {
	if l.owner, err = openLock(filepath.Join(dir, "lock")); err != nil {
		return err
	}
	err = flock(l.owner, syscall.LOCK_EX|syscall.LOCK_NB)
	l.alone = err == nil
	if shared {
		err = flock(l.owner, syscall.LOCK_SH|syscall.LOCK_NB)
	}
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("%w: another rowcast (pid %s) uses it", ErrInUse, readOwner(l.owner))
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", l.owner.Name(), err)
	}
	return l.sign()
}

// sign writes our process id into the lock file, for the message that others
// get; it is never used to find out who is alive.
func (l *lock) sign() error {
	if err := l.owner.Truncate(0); err != nil {
		return err
	}
	_, err := l.owner.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// leave ends a shared ownership and tells whether it was the last; then the
// directory is ours alone, with the gate closed, until release.
func (l *lock) leave(ctx context.Context) (last bool, err error) {
	if l.gate, err = closeGate(ctx, filepath.Dir(l.owner.Name())); err != nil {
		return false, err
	}
	// If others hold it too, this fails and gives up our share: we go anyway.
	return flock(l.owner, syscall.LOCK_EX|syscall.LOCK_NB) == nil, nil
}

// closeGate waits until no other process starts or stops the server.
func closeGate(ctx context.Context, dir string) (*os.File, error) {
	gate, err := openLock(filepath.Join(dir, "gate"))
	if err != nil {
		return nil, err
	}
	// A blocking flock cannot be cancelled.
	for pause := newPause(); ; {
		err := flock(gate, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return gate, nil
		}
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = pause.wait(ctx)
		}
		if err != nil {
			gate.Close()
			return nil, fmt.Errorf("lock %s: %w", gate.Name(), err)
		}
	}
}

func (l *lock) openGate() {
	if l.gate != nil {
		unlock(l.gate)
		l.gate = nil
	}
}

func (l *lock) release() {
	if l.owner != nil {
		unlock(l.owner)
	}
	l.openGate()
}

// unlock gives a lock back at once: closing the file would leave it to a process that is just being started, which shares all
// open files until it executes its program.
func unlock(f *os.File) {
	_ = flock(f, syscall.LOCK_UN)
	f.Close()
}

func openLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
}

func readOwner(f *os.File) string {
	text := make([]byte, 20)
	n, _ := f.ReadAt(text, 0)
	if pid := strings.TrimSpace(string(text[:n])); pid != "" {
		return pid
	}
	return "unknown"
}

func flock(f *os.File, how int) error {
	for {
		err := syscall.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
