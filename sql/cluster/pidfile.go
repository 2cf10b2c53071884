package cluster

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// pidFile is what a server says about itself in postmaster.pid (its lines are
// told in PostgreSQL's src/include/utils/pidfile.h).
type pidFile struct {
	pid     int // 0: there is no file, or not yet its first line
	address address
	status  string
}

func readPIDFile(data string) (pidFile, error) {
	text, err := os.ReadFile(filepath.Join(data, "postmaster.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return pidFile{}, nil
	}
	if err != nil {
		return pidFile{}, err
	}
	lines := append(strings.Split(string(text), "\n"), make([]string, 8)...)
	var file pidFile
	file.pid, _ = strconv.Atoi(strings.TrimSpace(lines[0]))
	file.address.port, _ = strconv.Atoi(strings.TrimSpace(lines[3]))
	file.address.socketDir = lines[4]
	file.status = strings.TrimSpace(lines[7])
	return file, nil
}

// overwritePID replaces the first line of the pid file.
func overwritePID(data string, pid int) error {
	path := filepath.Join(data, "postmaster.pid")
	f, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(strconv.Itoa(pid)+"\n"+rest), 0)
	return err
}
