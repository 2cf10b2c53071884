package dbtest

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql/cluster"
)

// drop removes a database with its sessions and its prepared transactions,
// which DROP DATABASE does not end and which only its own sessions can.
func drop(ctx context.Context, server *cluster.Cluster, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	err := admin(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "55006" /* object_in_use */ {
		return err
	}
	if err := rollbackPrepared(ctx, server.DSN(name)); err != nil {
		return err
	}
	return admin(ctx, server, "DROP DATABASE "+name+" WITH (FORCE)")
}

func rollbackPrepared(ctx context.Context, dsn string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database()")
	if err != nil {
		return err
	}
	statements, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, statement := range statements {
		_, rollbackErr := conn.Exec(ctx, statement)
		err = errors.Join(err, rollbackErr)
	}
	return err
}

// admin runs statements, each by itself, on a connection of its own.
func admin(ctx context.Context, server *cluster.Cluster, statements ...string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for _, statement := range statements {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}
