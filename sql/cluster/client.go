package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// ErrNoClient is returned by Client if the program is not installed at all,
// ErrClientVersion if no installed version of it works with the server.
var (
	ErrNoClient      = errors.New("not installed")
	ErrClientVersion = errors.New("only versions that do not work with it are installed")
)

// Client returns the path of a client program, such as pg_dump, that works with
// the server programs p: the one in their directory, or the first on PATH, or
// the newest in the usual places. It fails with ErrNoClient or ErrClientVersion.
func (p Programs) Client(ctx context.Context, name string) (string, error) {
	usual := expand(places)
	slices.Reverse(usual)
	return p.client(ctx, name, slices.Concat([]string{p.Dir}, filepath.SplitList(os.Getenv("PATH")), usual))
}

func (p Programs) client(ctx context.Context, name string, dirs []string) (string, error) {
	err := ErrNoClient
	for _, dir := range dirs {
		program := filepath.Join(dir, name)
		major, versionErr := clientMajor(ctx, program)
		switch {
		case ctx.Err() != nil:
			return "", ctx.Err()
		case versionErr != nil:
		case fits(name, major, p.Major):
			return program, nil
		default:
			err = ErrClientVersion
		}
	}
	return "", fmt.Errorf("find %s for PostgreSQL %d: %w", name, p.Major, err)
}

// fits reports whether a client program works with a server. Most programs, such
// as pg_dump, refuse a server that is newer than they are.
func fits(name string, major, server int) bool {
	switch name {
	case "psql", "pgbench":
		return true
	case "pg_upgrade":
		return major == server
	default:
		return major >= server
	}
}

var clientVersion = regexp.MustCompile(`(?m)^\S+ \(PostgreSQL\) (\d+)`)

func clientMajor(ctx context.Context, program string) (int, error) {
	output, err := askVersion(ctx, program)
	if err != nil {
		return 0, err
	}
	match := clientVersion.FindSubmatch(output)
	if match == nil {
		return 0, fmt.Errorf("read the version of %s%s", program, quote(string(output)))
	}
	return strconv.Atoi(string(match[1]))
}
