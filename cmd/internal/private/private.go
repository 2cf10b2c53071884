// Package private runs a PostgreSQL that belongs to a command: the demo and the benchmark need nothing prepared.
package private

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"rowcast/sql/cluster"
)

// Start starts a private server with the installed programs. If there are none, it downloads them. The server's files are in the default
// directory of that name.
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

// ignoreLibpq removes the variables of libpq, which are about other servers (PGSERVICE, PGOPTIONS, PGSSLMODE).
func ignoreLibpq() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			_ = os.Unsetenv(name) // fails on names that cannot be set either
		}
	}
}
