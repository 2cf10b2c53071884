package dbtest

import (
	"context"

	"rowcast/sql/cluster"
)

// WithoutPostgreSQL makes this binary behave as on a machine that has no
// PostgreSQL and cannot download it.
func WithoutPostgreSQL() {
	obtain = func(context.Context, func(done, total int64)) (cluster.Programs, error) {
		return cluster.Programs{}, cluster.ErrNotFound
	}
}

// ReservePort is called by a test with few ports.
var ReservePort = reservePort
