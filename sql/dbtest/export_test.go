package dbtest

import (
	"context"

	"rowcast/sql/cluster"
)

// WithoutPostgreSQL makes this binary behave as on a machine that has no PostgreSQL and cannot download it.
func WithoutPostgreSQL() {
	obtain = func(context.Context, func(done, total int64)) (cluster.Programs, error) {
		return cluster.Programs{}, cluster.ErrNotFound
	}
}

// ReservePort lets a test reserve ports of a small range.
var ReservePort = reservePort

// ClientOf lets a test name the server programs whose clients are sought.
var ClientOf = client

// NodeIn lets a test name the caches in which Node is sought.
var NodeIn = node
