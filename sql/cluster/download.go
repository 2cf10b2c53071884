package cluster

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"github.com/ulikunitz/xz"
)

// downloadSource is a Maven repository that has PostgreSQL's programs for most systems
// (https://github.com/zonkyio/embedded-postgres-binaries), and downloadVersion is the version that is downloaded.
const (
	downloadSource  = "https://repo1.maven.org/maven2"
	downloadVersion = "18.3.0"
)

// Obtain returns the programs that Find returns. If there are none, it downloads PostgreSQL into a default directory;
// later calls find it there. progress, if not nil, is called with the number of bytes received and the total number.
// total is -1 if it is unknown. If the download fails, the error is an ErrNotFound with the reason.
func Obtain(ctx context.Context, progress func(done, total int64)) (Programs, error) {
	programs, err := Find(ctx)
	if !errors.Is(err, ErrNotFound) {
		return programs, err
	}
	dir, err := DefaultDir("postgresql")
	if err == nil {
		programs, err = download(ctx, downloadSource, dir, progress)
	}
	if err != nil {
		return Programs{}, fmt.Errorf("%w; downloading them failed too: %w", ErrNotFound, err)
	}
	return programs, nil
}

// download returns the programs in a directory. If there are none, it downloads them first.
func download(ctx context.Context, source, dir string, progress func(done, total int64)) (Programs, error) {
	unlock, err := lock(ctx, dir, true)
	if err != nil {
		return Programs{}, err
	}
	defer unlock()
	place := filepath.Join(dir, "postgresql-"+downloadVersion)
	if programs, err := inspect(ctx, filepath.Join(place, "bin")); err == nil {
		return programs, nil
	}
	archive, err := fetchVerified(ctx, source+archivePath(), progress)
	if err != nil {
		return Programs{}, err
	}
	incomplete := filepath.Join(dir, "incomplete")
	if err := errors.Join(os.RemoveAll(place), os.RemoveAll(incomplete)); err != nil {
		return Programs{}, err
	}
	defer os.RemoveAll(incomplete)
	if err := unpack(archive, incomplete); err != nil {
		return Programs{}, fmt.Errorf("unpack %s: %w", source+archivePath(), err)
	}
	programs, err := inspect(ctx, filepath.Join(incomplete, "bin"))
	if err != nil {
		return Programs{}, err // for example, the programs are for another system
	}
	programs.Dir = filepath.Join(place, "bin")
	return programs, os.Rename(incomplete, place)
}

// archivePath returns the path of the archive for this system in the repository.
func archivePath() string {
	system := runtime.GOOS + "-" + runtime.GOARCH
	if runtime.GOARCH == "arm64" {
		system += "v8"
	}
	if _, err := os.Stat("/etc/alpine-release"); err == nil {
		system += "-alpine"
	}
	name := "embedded-postgres-binaries-" + system
	return "/io/zonky/test/postgres/" + name + "/" + downloadVersion + "/" + name + "-" + downloadVersion + ".jar"
}

// fetchVerified returns a file of the repository. It fails if the file does not have the checksum that the repository
// publishes.
func fetchVerified(ctx context.Context, address string, progress func(done, total int64)) ([]byte, error) {
	published, err := fetch(ctx, address+".sha256", nil)
	if err != nil {
		return nil, err
	}
	content, err := fetch(ctx, address, progress)
	if err != nil {
		return nil, err
	}
	want := strings.ToLower(strings.TrimSpace(string(published)))
	if got := fmt.Sprintf("%x", sha256.Sum256(content)); got != want {
		return nil, fmt.Errorf("get %s: the checksum is %s, want %s", address, got, want)
	}
	return content, nil
}

// maxDownload limits the size of a downloaded file, in bytes.
const maxDownload = 256 << 20

func fetch(ctx context.Context, address string, progress func(done, total int64)) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", address, response.Status)
	}
	body, content := http.MaxBytesReader(nil, response.Body, maxDownload), bytes.Buffer{}
	for err == nil {
		_, err = io.CopyN(&content, body, 1<<16)
		if progress != nil {
			progress(int64(content.Len()), response.ContentLength)
		}
	}
	if !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("get %s: %w", address, err)
	}
	return content.Bytes(), nil
}

// unpack extracts the programs from a jar, which holds one compressed tar file. Every user may read and run them,
// because the server may run as another user.
func unpack(jar []byte, to string) error {
	archive, err := zip.NewReader(bytes.NewReader(jar), int64(len(jar)))
	if err != nil {
		return err
	}
	found, _ := fs.Glob(archive, "*.txz")
	if len(found) != 1 {
		return fmt.Errorf("the archive has %d files *.txz, want 1", len(found))
	}
	compressed, err := archive.Open(found[0])
	if err != nil {
		return err
	}
	defer compressed.Close()
	stream, err := xz.NewReader(compressed)
	if err == nil {
		err = extract(tar.NewReader(stream), to)
	}
	if err == nil {
		err = exec.Command("chmod", "-R", "a+rX", to).Run()
	}
	return err
}

// extract writes the files of an archive. ForkLock keeps this process from starting other processes meanwhile. A new
// process has the open files of this process for a moment, and Linux does not run a program that a process has open for
// writing (https://go.dev/issue/22315).
func extract(archive *tar.Reader, to string) error {
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(to) // a path in the archive cannot name a file outside of this directory
	if err != nil {
		return err
	}
	defer root.Close()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = root.MkdirAll(filepath.Dir(header.Name), 0o700)
		}
		if err == nil && header.Typeflag == tar.TypeSymlink {
			err = root.Symlink(header.Linkname, header.Name)
		}
		if err == nil && header.Typeflag == tar.TypeReg {
			var content []byte
			if content, err = io.ReadAll(archive); err == nil {
				err = root.WriteFile(header.Name, content, fs.FileMode(header.Mode).Perm())
			}
		}
		if err != nil {
			return err
		}
	}
}
