// Package private runs a private PostgreSQL server for the demo and the benchmark, so that the user does not need to
// install or configure PostgreSQL.
package private

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"rowcast/sql/cluster"
)

// Start starts a private server with the installed PostgreSQL programs. If there are none, Start downloads them. The
// server's files are in the directory that cluster.DefaultDir returns for name.
func Start(ctx context.Context, name string, progress *Progress, configure func(*cluster.Cluster)) (*cluster.Cluster, cluster.Programs, error) {
	dir, err := cluster.DefaultDir(name)
	if errors.Is(err, cluster.ErrUnsupported) {
		err = fmt.Errorf("%w; to use a server that runs already, set DATABASE_URL", err)
	}
	if err != nil {
		return nil, cluster.Programs{}, err
	}
	programs, err := cluster.Obtain(ctx, progress.Download)
	if err != nil {
		return nil, programs, err
	}
	ignoreLibpq()
	server := &cluster.Cluster{Dir: dir, Programs: programs, Progress: progress.Step}
	configure(server)
	progress.Step("starting PostgreSQL " + programs.Version)
	return server, programs, server.Start(ctx)
}

// ignoreLibpq removes the environment variables of libpq, such as PGSERVICE and PGOPTIONS, because they are meant for
// other servers.
func ignoreLibpq() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // Unsetenv fails only for names that a variable cannot have
		}
	}
}
