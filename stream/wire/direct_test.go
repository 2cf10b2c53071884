//go:build unix

package wire_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"rowcast/stream/wire"
)

// After a file is closed, the system gives its descriptor's number to the next file. A Direct of the closed file fails
// and writes nothing to the new one. Not parallel: other tests could take the number.
func TestAClosedFileIsNotWrittenTo(t *testing.T) {
	first := create(t)
	direct, number := wire.DirectTo(raw(t, first)), numberOf(t, first)
	if n, err := direct.Try([]byte("open")); n != 4 || err != nil {
		t.Fatalf("wrote %d bytes, %v, to an open file, want 4 and no error", n, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	next := create(t)
	if got := numberOf(t, next); got != number {
		t.Fatalf("the next file has the descriptor %d, want %d: the test shows nothing", got, number)
	}
	if n, err := direct.Try([]byte("closed")); n != 0 || err == nil {
		t.Errorf("wrote %d bytes, %v, to a closed file, want none and an error", n, err)
	}
	if info, err := next.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the next file has %d bytes, %v, want none", info.Size(), err)
	}
}

// The zero Direct writes nothing, without an error.
func TestZeroDirect(t *testing.T) {
	t.Parallel()
	if n, err := (wire.Direct{}).Try([]byte("x")); n != 0 || err != nil {
		t.Errorf("wrote %d bytes, %v, want none and no error", n, err)
	}
}

func create(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func raw(t *testing.T, f *os.File) syscall.RawConn {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func numberOf(t *testing.T, f *os.File) (number uintptr) {
	t.Helper()
	if err := raw(t, f).Control(func(fd uintptr) { number = fd }); err != nil {
		t.Fatal(err)
	}
	return number
}
