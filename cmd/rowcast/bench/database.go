package bench

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
)

// ErrForbidden says that the role may not make a database.
var ErrForbidden = errors.New("the benchmark makes a database of its own, and the role may not: grant it with ALTER ROLE … CREATEDB")

// open makes the scratch database.
func (b *Bench) open(ctx context.Context) (err error) {
	config, err := pgx.ParseConfig(b.DSN)
	if err != nil {
		return err
	}
	config.RuntimeParams["application_name"] = "rowcast bench"
	if b.admin, err = pgx.ConnectConfig(ctx, config); err != nil {
		return err
	}
	if b.dsn, err = b.scratch(ctx); err != nil {
		return err
	}
	return b.install(ctx)
}

// scratch makes a database with the schema.
func (b *Bench) scratch(ctx context.Context) (dsn string, err error) {
	name := "rowcast_bench_" + strings.ToLower(rand.Text()[:10])
	// Not to be interrupted: the server would make it all the same, after we had looked for what is to be removed.
	making, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_, err = b.admin.Exec(making, "CREATE DATABASE "+name+" TEMPLATE template0")
	if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "42501" { // insufficient_privilege
		return "", fmt.Errorf("%w (%s)", ErrForbidden, said.Message)
	}
	if err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	b.made = append(b.made, name)
	dsn = withDatabase(b.DSN, name)
	_, _, err = sql.Migrate(ctx, dsn)
	return dsn, err
}

// install makes what the comparisons are with.
func (b *Bench) install(ctx context.Context) (err error) {
	config, err := pgx.ParseConfig(b.dsn)
	if err != nil {
		return err
	}
	config.RuntimeParams["application_name"] = "rowcast bench"
	if b.watch, err = pgx.ConnectConfig(ctx, config); err != nil {
		return err
	}
	const plain = `CREATE SCHEMA plain; CREATE TABLE plain.notifications (LIKE rowcast.notifications INCLUDING ALL);`
	_, err = b.watch.Exec(ctx, naiveSchema+plain+appSchema)
	return err
}

// withDatabase is a connection string with another database.
func withDatabase(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return dsn + " dbname=" + name // the last one counts
	}
	query := u.Query()
	query.Del("dbname")
	u.Path, u.RawQuery = "/"+name, query.Encode()
	return u.String()
}

// close removes the databases, also when the context has ended.
func (b *Bench) close() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if b.watch != nil {
		_ = b.watch.Close(ctx)
	}
	if b.admin == nil {
		return nil
	}
	for _, name := range b.made {
		if _, failed := b.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); failed != nil {
			err = errors.Join(err, fmt.Errorf("remove the database %s: %w", name, failed))
		}
	}
	return errors.Join(err, b.admin.Close(ctx))
}

// backends is the CPU that a database's sessions have used whose names begin so, where the server is on this machine.
func (b *Bench) backends(ctx context.Context, dsn, application string) (time.Duration, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return 0, err
	}
	const query = `SELECT pid FROM pg_stat_activity
		WHERE datname = $1 AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND starts_with(application_name, $2)`
	rows, err := b.watch.Query(ctx, query, config.Database, application)
	if err != nil {
		return 0, err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int])
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, pid := range pids {
		if !isBackend(pid, config.Database) {
			return 0, errUnmeasured
		}
		spent, err := processCPU(pid)
		if err != nil {
			return 0, err
		}
		sum += spent
	}
	return sum, nil
}
