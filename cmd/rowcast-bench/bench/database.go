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

	"rowcast/sql"
)

// connect begins the report, if the role may make databases.
func (b *Bench) connect(ctx context.Context) (err error) {
	if b.admin, err = connect(ctx, b.DSN); err != nil {
		return err
	}
	// It is not our database: a stranger may have put functions into it.
	if _, err = b.admin.Exec(ctx, "SET search_path = pg_catalog, pg_temp"); err != nil {
		return err
	}
	r := &Report{Quick: b.Quick}
	var role string
	var may bool
	const query = `SELECT current_setting('server_version'), rolname::text, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user`
	if err := b.admin.QueryRow(ctx, query).Scan(&r.Server, &role, &may); err != nil {
		return err
	}
	if !may {
		return fmt.Errorf("the benchmark makes databases of its own, and the role %q may not: ALTER ROLE %s CREATEDB", role, pgx.Identifier{role}.Sanitize())
	}
	r.Server, _, _ = strings.Cut(r.Server, " ")
	b.report = r
	return nil
}

func (b *Bench) disconnect() error {
	if b.admin == nil {
		return nil
	}
	return b.admin.Close(context.Background())
}

// connect connects under a name by which our own sessions are known.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = "rowcast bench"
	return pgx.ConnectConfig(ctx, config)
}

// prepare makes a scenario's database, with what the comparisons are with.
func (b *Bench) prepare(ctx context.Context) (err error) {
	if b.dsn, err = b.scratch(ctx); err != nil {
		return err
	}
	if b.watch, err = connect(ctx, b.dsn); err != nil {
		return err
	}
	const plain = `CREATE SCHEMA plain; CREATE TABLE plain.notifications (LIKE rowcast.notifications INCLUDING ALL);`
	_, err = b.watch.Exec(ctx, naiveSchema+plain+appSchema)
	return err
}

// scratch makes a database with the schema.
func (b *Bench) scratch(ctx context.Context) (dsn string, err error) {
	name := "rowcast_bench_" + strings.ToLower(rand.Text()[:10])
	// Not to be interrupted: the server would make it all the same, after we had looked for what is to be removed.
	making, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_, err = b.admin.Exec(making, "CREATE DATABASE "+name+" TEMPLATE template0")
	if err != nil {
		return "", fmt.Errorf("make a database: %w", err)
	}
	b.made = append(b.made, name)
	dsn = withDatabase(b.DSN, name)
	_, _, err = sql.Migrate(ctx, dsn)
	return dsn, err
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

// clear removes the databases of a scenario, also when the context has ended.
func (b *Bench) clear() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if b.watch != nil {
		_ = b.watch.Close(ctx)
	}
	for _, name := range b.made {
		if _, failed := b.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); failed != nil {
			err = errors.Join(err, fmt.Errorf("remove the database %s: %w", name, failed))
		}
	}
	b.dsn, b.watch, b.made = "", nil, nil
	return err
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
