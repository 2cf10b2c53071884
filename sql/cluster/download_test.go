//go:build unix

package cluster_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ulikunitz/xz"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// repository starts a Maven repository. It returns the URL of the repository and a counter of the requests. The
// extension of a request's path selects the handler.
func repository(t *testing.T, handlers map[string]http.HandlerFunc) (url string, requests *atomic.Int64) {
	t.Helper()
	requests = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		handler, ok := handlers[filepath.Ext(r.URL.Path)]
		if !ok || !strings.HasPrefix(r.URL.Path, "/maven/io/zonky/test/postgres/embedded-postgres-binaries-") {
			http.NotFound(w, r)
			return
		}
		handler(w, r)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/maven", requests
}

// existing creates an empty directory for this test.
func existing(t *testing.T) string {
	t.Helper()
	dir := directory(t)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func serve(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body)
	}
}

func checksum(body []byte) http.HandlerFunc {
	sum := sha256.Sum256(body)
	return serve([]byte(hex.EncodeToString(sum[:])))
}

func TestDownload(t *testing.T) {
	t.Parallel()
	installed, err := cluster.Find(dbtest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	programs := jar(t, installed.Dir)
	url, requests := repository(t, map[string]http.HandlerFunc{".jar": serve(programs), ".sha256": checksum(programs)})
	dir := existing(t)
	var done, total int64
	got, err := cluster.DownloadFrom(dbtest.Context(t), url, dir, func(d, all int64) { done, total = d, all })
	if err != nil {
		t.Fatal(err)
	}
	if got.Version != installed.Version || got.Dir != filepath.Join(dir, "postgresql-"+cluster.DownloadVersion, "bin") {
		t.Errorf("downloaded %+v, want version %s below %s", got, installed.Version, dir)
	}
	if size := int64(len(programs)); done != size || total != size {
		t.Errorf("progress ended at %d of %d bytes, want %d of %[3]d bytes", done, total, size)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 { // the programs and the lock
		t.Errorf("the directory contains %v (error %v), want the programs and the lock", left, err)
	}

	before := requests.Load()
	if again, err := cluster.DownloadFrom(dbtest.Context(t), url, dir, nil); err != nil || again != got {
		t.Errorf("the second call: got %+v, %v, want %+v", again, err, got)
	}
	if n := requests.Load() - before; n != 0 {
		t.Errorf("the second call made %d requests, want 0", n)
	}

	c := quick(directory(t))
	c.Programs = got // if root runs the test, start shows that the server's user can run these programs
	start(t, c)
}

func TestDownloadFails(t *testing.T) {
	t.Parallel()
	installed, err := cluster.Find(dbtest.Context(t))
	if err != nil {
		t.Fatal(err)
	}
	programs := jar(t, installed.Dir)
	for name, test := range map[string]struct {
		handlers map[string]http.HandlerFunc
		want     string
	}{
		"no archive":        {nil, "404 Not Found"},
		"wrong checksum":    {map[string]http.HandlerFunc{".jar": serve(programs), ".sha256": checksum(nil)}, "the checksum is"},
		"no checksum":       {map[string]http.HandlerFunc{".jar": serve(programs)}, ".sha256: 404 Not Found"},
		"an empty archive":  {map[string]http.HandlerFunc{".jar": serve(nil), ".sha256": checksum(nil)}, "zip: not a valid zip file"},
		"a partial archive": {map[string]http.HandlerFunc{".jar": cutOff(programs), ".sha256": checksum(programs)}, ".jar: unexpected EOF"},
		"programs that die": {serveBoth(jar(t, t.TempDir())), "not found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := repository(t, test.handlers)
			dir := existing(t)
			_, err := cluster.DownloadFrom(dbtest.Context(t), url, dir, nil)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error that contains %q", err, test.want)
			}
		})
	}
}

func serveBoth(body []byte) map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{".jar": serve(body), ".sha256": checksum(body)}
}

func cutOff(body []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(body)))
		w.Write(body[:len(body)/2])
	}
}

func TestDownloadEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	url, _ := repository(t, map[string]http.HandlerFunc{".sha256": checksum(nil), ".jar": func(w http.ResponseWriter, r *http.Request) {
		w.Write([]byte("PK"))
		w.(http.Flusher).Flush()
		cancel()
		select {
		case <-r.Context().Done():
		case <-time.After(patience):
			t.Error("the download did not end with its context")
		}
	}})
	if _, err := cluster.DownloadFrom(ctx, url, existing(t), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// jar returns an archive in the form of the archives of the repository. The programs in the archive are scripts that
// run the programs in dir.
func jar(t *testing.T, dir string) []byte {
	t.Helper()
	var files bytes.Buffer
	tape := tar.NewWriter(&files)
	for _, name := range []string{"bin/postgres", "bin/initdb", "bin/pg_ctl"} {
		script := fmt.Sprintf("#!/bin/sh\nexec '%s' \"$@\"\n", filepath.Join(dir, filepath.Base(name)))
		if err := tape.WriteHeader(&tar.Header{Name: name, Mode: 0o700, Size: int64(len(script)), Typeflag: tar.TypeReg}); err != nil {
			t.Fatal(err)
		}
		if _, err := tape.Write([]byte(script)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tape.Close(); err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	z := zip.NewWriter(&archive)
	entry, err := z.Create("postgres.txz")
	if err != nil {
		t.Fatal(err)
	}
	compressed, err := xz.NewWriter(entry)
	if err == nil {
		_, err = compressed.Write(files.Bytes())
	}
	if err == nil {
		err = compressed.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}
