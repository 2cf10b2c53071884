package dbtest

import (
	"context"

	"rowcast/sql/cluster"
)

// WithoutPostgreSQL lets this process find none.
func WithoutPostgreSQL() {
	obtain = func(context.Context, string, func(done, total int64)) (cluster.Programs, error) {
		return cluster.Programs{}, cluster.ErrNotFound
	}
}

var TemplateName = templateName
