package dbtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"rowcast/sql/cluster"
)

// Client returns the path of a client program, such as pg_dump. It looks beside the server programs first, and then on
// the PATH. If there is none, the test ends with [Missing]. If the program has an older major version than the server,
// the test is skipped, unless the program is psql.
func Client(t testing.TB, name string) string {
	t.Helper()
	if err := prepare(); err != nil {
		t.Fatalf("dbtest: no PostgreSQL for the test: %v", err)
	}
	return client(t, binary.programs, name)
}

func client(t testing.TB, server cluster.Programs, name string) string {
	t.Helper()
	program, major := Program(t, "postgresql-client", filepath.Join(server.Dir, name), name), 0
	version, err := exec.CommandContext(Context(t), program, "--version").Output()
	if _, scanErr := fmt.Sscanf(string(version), name+" (PostgreSQL) %d", &major); err != nil || scanErr != nil {
		t.Fatalf("the version of %s is %q: %v", program, version, errors.Join(err, scanErr))
	}
	if name != "psql" && major < server.Major { // programs such as pg_dump refuse a server that is newer than they are
		t.Skipf("dbtest: %s has version %d, too old for PostgreSQL %d", program, major, server.Major)
	}
	return program
}

// Program returns the path of the first of the named programs that is installed. If none is installed, it calls
// [Missing] and names the Debian package of the first program.
func Program(t testing.TB, debianPackage string, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	Missing(t, names[0]+" is not installed: apt install "+debianPackage+" (Debian)")
	return ""
}

// Node returns the path of a Node that all npm packages in the tests support. It prefers the Node that .ci/run installs
// to the Node on the PATH. (.ci/run installs one because the Node 18 of Debian 12 is too old.) If there is no Node, or
// the Node on the PATH is too old, the test ends with [Missing].
func Node(t testing.TB) string {
	t.Helper()
	return node(t, caches())
}

func node(t testing.TB, caches []string) string {
	t.Helper()
	const major, minor = 20, 19 // Prisma 7 needs this version
	module := "node-" + runtime.GOOS + "-" + strings.Replace(runtime.GOARCH, "amd64", "x64", 1)
	if modules := modulesWith(filepath.Join(module, "bin", "node"), "node", caches); modules != "" {
		return filepath.Join(modules, module, "bin", "node")
	}
	missing := fmt.Sprintf("Node %d.%d or later is not installed: %s, or install Node", major, minor, howToInstall(".ci/node", "node", caches))
	path, err := exec.LookPath("node")
	if err != nil {
		Missing(t, missing)
	}
	var hasMajor, hasMinor int
	version, err := exec.CommandContext(Context(t), path, "-p", "process.versions.node").Output()
	if _, scanErr := fmt.Sscanf(string(version), "%d.%d", &hasMajor, &hasMinor); err != nil || scanErr != nil {
		t.Fatalf("the version of %s is %q: %v", path, version, errors.Join(err, scanErr))
	}
	if hasMajor < major || hasMajor == major && hasMinor < minor {
		Missing(t, fmt.Sprintf("%s has version %s: %s", path, strings.TrimSpace(string(version)), missing))
	}
	return path
}

// Interpreter returns the path of the interpreter with the given name. It runs code, which loads the modules that the
// test needs. If the interpreter is not installed, or cannot run code, the test ends with [Missing], which names the
// Debian packages.
func Interpreter(t testing.TB, name, code, packages string) string {
	t.Helper()
	interpreter := Program(t, packages, name)
	option := cmp.Or(map[string]string{"php": "-r", "ruby": "-e"}[name], "-c")
	if out, err := exec.CommandContext(Context(t), interpreter, option, code).CombinedOutput(); err != nil {
		Missing(t, fmt.Sprintf("%s cannot run %q: apt install %s (Debian)\n%s", interpreter, code, packages, out))
	}
	return interpreter
}

// NodeModules returns a directory of Node modules that .ci/run installs. source is the directory in the repository that
// has the package.json. name is the name of the installation's directory in the cache of rowcast. module is one of the
// modules. If module is not installed, the test ends with [Missing].
func NodeModules(t testing.TB, source, name, module string) string {
	t.Helper()
	modules := modulesWith(module, name, caches())
	if modules == "" {
		Missing(t, "the Node module "+module+" is not installed: "+howToInstall(source, name, caches()))
	}
	return modules
}

// GoBuild builds the programs of a Go module that has its own go.mod, without a download. source is the directory of
// the module in the repository, for the message of [Missing]. dir is the directory in which the module is built. bin is
// the directory for the executables. If the required modules are not downloaded, the test ends with [Missing].
func GoBuild(t testing.TB, source, dir, bin string) {
	t.Helper()
	program := Program(t, "golang", "go")
	// The first build compiles all modules, which takes minutes on a loaded machine.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	goTool := func(arguments ...string) ([]byte, error) {
		command := exec.CommandContext(ctx, program, arguments...)
		command.Dir, command.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOPROXY=off", "CGO_ENABLED=0")
		return command.CombinedOutput()
	}
	if out, err := goTool("mod", "download"); err != nil {
		Missing(t, fmt.Sprintf("the Go modules of the clients are not downloaded: run go mod download in %s\n%s", source, out))
	}
	if out, err := goTool("build", "-o", bin+string(filepath.Separator), "./..."); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// caches returns the directories in which .ci/run installs Node modules: as root, and as another user.
func caches() []string {
	caches := []string{"/var/cache"}
	if own, err := os.UserCacheDir(); err == nil {
		caches = append(caches, own)
	}
	return caches
}

// modulesWith returns the first directory of Node modules that contains file, or "" if none does.
func modulesWith(file, name string, caches []string) string {
	for _, cache := range caches {
		modules := filepath.Join(cache, "rowcast", name, "node_modules")
		if _, err := os.Stat(filepath.Join(modules, file)); err == nil {
			return modules
		}
	}
	return ""
}

func howToInstall(source, name string, caches []string) string {
	return "copy " + source + " to " + filepath.Join(caches[len(caches)-1], "rowcast", name) + " and run npm ci --ignore-scripts in the copy"
}

// Missing skips a test that needs something that the machine does not have. With CI=true, which .ci/run sets, it fails
// the test, because a skipped test would not be noticed.
func Missing(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(missing)
	}
	t.Skip(missing)
}
