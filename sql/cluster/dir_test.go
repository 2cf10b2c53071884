//go:build unix

package cluster_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

func TestDefaultDirIsInTheCacheThatTheServerReaches(t *testing.T) {
	home := filepath.Dir(directory(t))
	t.Setenv("HOME", home)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(home, "cache"))
	dir, err := cluster.DefaultDir("demo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(dir, home) || !strings.HasSuffix(dir, "/rowcast/demo") {
		t.Errorf("the directory is %s, want …/rowcast/demo below %s", dir, home)
	}
	if again, err := cluster.DefaultDir("demo"); err != nil || again != dir {
		t.Errorf("the second call of DefaultDir: got %s, %v, want %s", again, err, dir)
	}
	start(t, quick(dir))
}

func TestDefaultDirFallsBack(t *testing.T) {
	closed := directory(t)
	if err := os.WriteFile(closed, nil, 0o600); err != nil { // no directory can be created below a file
		t.Fatal(err)
	}
	// For root, the test shows more: root can use the cache directory here, but the server's user cannot enter it.
	if os.Geteuid() == 0 {
		if err := os.Remove(closed); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("HOME", closed)
	t.Setenv("XDG_CACHE_HOME", filepath.Join(closed, "cache"))
	name := filepath.Base(base) // unique for this run
	dir, err := cluster.DefaultDir(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if !strings.HasPrefix(dir, "/var/") && !strings.HasPrefix(dir, "/private/var/") {
		t.Errorf("the directory is %s, want one below /var", dir)
	}
	start(t, quick(dir))
}

// Start refuses a link, and a directory that another user controls, because that user could choose which files Start
// overwrites. It also refuses a file, and a directory that the server's user cannot enter.
func TestForeignDirectoriesAreRefused(t *testing.T) {
	t.Parallel()
	mkdir := func(t *testing.T, dir string) {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		prepare  func(t *testing.T, dir string)
		below    string // the path of the cluster's directory, relative to the prepared directory
		rootOnly bool
		want     string
	}{
		"a link": {prepare: func(t *testing.T, dir string) {
			if err := os.Symlink(t.TempDir(), dir); err != nil {
				t.Fatal(err)
			}
		}, want: "is not a directory"},
		"a file": {prepare: func(t *testing.T, dir string) {
			if err := os.WriteFile(dir, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, want: "is not a directory"},
		"writable by others": {prepare: func(t *testing.T, dir string) {
			mkdir(t, dir)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, want: "can be written by others (mode 0777)"},
		"owned by another user": {prepare: func(t *testing.T, dir string) {
			mkdir(t, dir)
			if err := os.Chown(dir, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		}, rootOnly: true, want: "belongs to another user (id 12345)"},
		"below a directory of another user": {prepare: func(t *testing.T, dir string) {
			mkdir(t, dir)
			if err := os.Chown(dir, 12345, 12345); err != nil {
				t.Fatal(err)
			}
		}, below: "pg", rootOnly: true, want: "belongs to another user (id 12345)"},
		"below a directory that others can write to": {prepare: func(t *testing.T, dir string) {
			mkdir(t, dir)
			if err := os.Chmod(dir, 0o777); err != nil {
				t.Fatal(err)
			}
		}, below: "pg", rootOnly: true, want: "can be written by others (mode 0777)"},
		"below a directory that the server's user cannot enter": {prepare: func(t *testing.T, dir string) {
			mkdir(t, dir)
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
		}, below: "pg", rootOnly: true, want: "cannot enter"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.rootOnly && os.Geteuid() != 0 {
				t.Skip("only root can test this case")
			}
			dir := directory(t)
			test.prepare(t, dir)
			c := quick(filepath.Join(dir, test.below))
			err := c.Start(dbtest.Context(t))
			if err == nil {
				stop(t, c)
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Start in this directory: got error %v, want one that contains %q", err, test.want)
			}
		})
	}
}

// The server's user could put a symbolic link at a path to which root copies a file. The copy must not follow the link.
func TestCopiesFollowNoLinkInTheTarget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	source, target, other := filepath.Join(dir, "source"), filepath.Join(dir, "target"), filepath.Join(dir, "other")
	for _, err := range []error{
		os.Mkdir(source, 0o700), os.WriteFile(filepath.Join(source, "file"), []byte("new"), 0o600),
		os.Mkdir(target, 0o700), os.WriteFile(other, []byte("old"), 0o600), os.Symlink(other, filepath.Join(target, "file")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	err := cluster.CopyFiles(source, target)
	if text, _ := os.ReadFile(other); err == nil || string(text) != "old" {
		t.Errorf("got the error %v, and the file behind the link contains %q, want an error and \"old\"", err, text)
	}
}
