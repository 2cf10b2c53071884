//go:build unix

package wire_test

import (
	"os"
	"syscall"
	"testing"

	"rowcast/stream/wire"
)

// After a file is closed, the system gives its descriptor's number to the next file. A Direct of the closed file fails
// and writes nothing to the new one. Not parallel: other tests could take the number.
func TestAClosedFileIsNotWrittenTo(t *testing.T) {
	_, first := pipe(t)
	direct, number := wire.DirectTo(raw(t, first)), numberOf(t, first)
	if n, err := direct.Try([]byte("open")); n != 4 || err != nil {
		t.Fatalf("wrote %d bytes, %v, to an open file", n, err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_, next := pipe(t)
	for i := 0; numberOf(t, next) != number; i++ {
		if i == 10 {
			t.Fatalf("no new file has the number %d: the test shows nothing", number)
		}
		_, next = pipe(t)
	}
	if n, err := direct.Try([]byte("closed")); n != 0 || err == nil {
		t.Errorf("wrote %d bytes, %v, to a closed file", n, err)
	}
}

// The zero Direct writes nothing, without an error.
func TestZeroDirect(t *testing.T) {
	t.Parallel()
	if n, err := (wire.Direct{}).Try([]byte("x")); n != 0 || err != nil {
		t.Errorf("wrote %d bytes, %v", n, err)
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
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
