package cluster

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

var (
	errPortTaken = errors.New("the TCP port is taken")
	errOrphans   = errors.New("sessions of a killed server are still running")
)

// serverLog is the server's log file and where the present run began in it.
type serverLog struct {
	*os.File
	start int64
}

// maxLog is when the log is begun anew, in bytes.
const maxLog = 10 << 20

func openLog(path string) (*serverLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Size() > maxLog {
		err = f.Truncate(0)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if info, err = f.Stat(); err != nil {
		f.Close()
		return nil, err
	}
	return &serverLog{File: f, start: info.Size()}, nil
}

// explain adds to a failed start what the server said.
func (l *serverLog) explain(err error) error {
	info, statErr := l.Stat()
	if statErr != nil {
		return errors.Join(err, statErr)
	}
	text := make([]byte, min(info.Size()-l.start, 64<<10))
	n, _ := l.ReadAt(text, info.Size()-int64(len(text)))
	said := string(text[:n])
	switch {
	case strings.Contains(said, "could not create any TCP/IP sockets"):
		err = fmt.Errorf("%w: %w", errPortTaken, err)
	case strings.Contains(said, "pre-existing shared memory block"):
		err = fmt.Errorf("%w: %w", errOrphans, err)
	}
	return fmt.Errorf("%w%s", err, quote(said))
}

// quote puts the last lines of a program's output below an error.
func quote(output string) string {
	const most = 12
	lines := strings.Split(strings.TrimSpace(output), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	if len(lines) == 1 && lines[0] == "" {
		return " (it said nothing)"
	}
	return "; it said:\n\t" + strings.Join(lines, "\n\t")
}

// lastLines is quote of a log file's end.
func lastLines(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	text := make([]byte, min(info.Size(), 8<<10))
	n, _ := f.ReadAt(text, info.Size()-int64(len(text)))
	return quote(string(text[:n]))
}
