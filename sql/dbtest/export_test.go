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

// ClientOf lets a test find the clients of other server programs.
var ClientOf = client

// NodeIn lets a test find Node in other caches.
var NodeIn = node
