package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// downloadVersion is the PostgreSQL that is downloaded, downloadSource the
// Maven repository that has its programs for most systems.
const (
	downloadVersion = embeddedpostgres.V18
	downloadSource  = "https://repo1.maven.org/maven2"
)

// Obtain returns what Find finds, and otherwise downloads PostgreSQL's programs
// to a directory below dir, once: later calls find them there. progress, if
// not nil, is told the bytes that have come and how many there are (-1: not
// known). Where the download fails too, the error is an ErrNotFound that also
// tells the download's.
func Obtain(ctx context.Context, dir string, progress func(done, total int64)) (Programs, error) {
	programs, err := Find(ctx)
	if !errors.Is(err, ErrNotFound) {
		return programs, err
	}
	return Download(ctx, dir, progress)
}

// Download is Obtain without Find.
func Download(ctx context.Context, dir string, progress func(done, total int64)) (Programs, error) {
	return download(ctx, downloadSource, dir, progress)
}

func download(ctx context.Context, source, dir string, progress func(done, total int64)) (Programs, error) {
	programs, err := downloadOnce(ctx, source, dir, progress)
	if err != nil {
		err = fmt.Errorf("%w; downloading them failed too: %w", ErrNotFound, err)
	}
	return programs, err
}

func downloadOnce(ctx context.Context, source, dir string, progress func(done, total int64)) (Programs, error) {
	server, err := serverAccount("")
	if err != nil {
		return Programs{}, err
	}
	if dir, err = makeDir(dir, server); err != nil {
		return Programs{}, err
	}
	gate, err := closeGate(ctx, dir)
	if err != nil {
		return Programs{}, err
	}
	defer gate.Close()

	place := filepath.Join(dir, "postgresql-"+string(downloadVersion))
	if programs, err := inspect(ctx, filepath.Join(place, "bin")); err == nil {
		return programs, nil
	}
	work := filepath.Join(dir, "download") // a killed one's, or ours
	if err := errors.Join(os.RemoveAll(place), os.RemoveAll(work), os.Mkdir(work, 0o700)); err != nil {
		return Programs{}, err
	}
	defer os.RemoveAll(work)
	unpacked, err := unpack(ctx, source, work, progress)
	if err != nil {
		return Programs{}, err
	}
	if _, err := inspect(ctx, filepath.Join(unpacked, "bin")); err != nil {
		return Programs{}, err // made for another system, say
	}
	if err := os.Rename(unpacked, place); err != nil {
		return Programs{}, err
	}
	return inspect(ctx, filepath.Join(place, "bin"))
}

// unpack downloads and unpacks the programs. The library does that in one go
// with starting a server, which we do better: we give it a data directory on
// which no server starts, and look at what it has unpacked before it failed.
func unpack(ctx context.Context, source, work string, progress func(done, total int64)) (string, error) {
	data := filepath.Join(work, "data")
	major, _, _ := strings.Cut(string(downloadVersion), ".")
	if err := os.Mkdir(data, 0o700); err != nil {
		return "", err
	}
	// It takes a directory with this file for one that initdb has filled.
	if err := os.WriteFile(filepath.Join(data, "PG_VERSION"), []byte(major+"\n"), 0o600); err != nil {
		return "", err
	}
	relay, err := startRelay(ctx, source, progress)
	if err != nil {
		return "", err
	}
	defer relay.close()
	port, err := freePort()
	if err != nil {
		return "", err
	}
	unpacked := filepath.Join(work, "programs")
	startErr := embeddedpostgres.NewDatabase(embeddedpostgres.DefaultConfig().
		Version(downloadVersion).
		BinaryRepositoryURL(relay.url).
		CachePath(filepath.Join(work, "archive")).
		RuntimePath(unpacked).
		DataPath(data).
		Port(uint32(port)).
		Logger(io.Discard)).Start()
	if err := relay.failure(); err != nil {
		return "", err // says more than startErr
	}
	if _, err := os.Stat(filepath.Join(unpacked, "bin", "postgres")); err != nil {
		return "", startErr
	}
	return unpacked, openToAll(unpacked)
}

// openToAll lets every user run the programs, whatever the umask: the server's
// user may be another one.
func openToAll(root string) error {
	return filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Type()&fs.ModeSymlink != 0 {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		mode := info.Mode().Perm() | 0o444
		if entry.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		return os.Chmod(path, mode)
	})
}
