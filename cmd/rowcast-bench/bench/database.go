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
	"rowcast/sql/connstring"
)

// connect connects to the server and begins the report. It fails if the role may not create databases.
func (b *Bench) connect(ctx context.Context) (err error) {
	if b.admin, err = connect(ctx, b.DSN); err != nil {
		return err
	}
	// Other users of this database may have created functions that have the same names as functions in pg_catalog.
	if _, err = b.admin.Exec(ctx, "SET search_path = pg_catalog, pg_temp"); err != nil {
		return err
	}
	r := &Report{Quick: b.Quick}
	var role string
	var mayCreate bool
	const query = `SELECT current_setting('server_version'), rolname::text, rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user`
	if err := b.admin.QueryRow(ctx, query).Scan(&r.Server, &role, &mayCreate); err != nil {
		return err
	}
	if !mayCreate {
		return fmt.Errorf("the benchmark creates its own databases, but the role %q may not create any: ALTER ROLE %s CREATEDB", role, pgx.Identifier{role}.Sanitize())
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

// connect connects with an application_name that identifies the sessions of the benchmark.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	config, err := connstring.Parse(dsn)
	if err != nil {
		return nil, err
	}
	config.RuntimeParams["application_name"] = "rowcast bench"
	return pgx.ConnectConfig(ctx, config)
}

// open connects without the application_name of connect, so that a session of an app or of another design is not
// counted as a session of rowcast (see backends).
func open(ctx context.Context, dsn string) (*pgx.Conn, error) {
	config, err := connstring.Parse(dsn)
	if err != nil {
		return nil, err
	}
	return pgx.ConnectConfig(ctx, config)
}

// prepare creates the database of a scenario, with the tables of an app and of the designs, except the watched table.
func (b *Bench) prepare(ctx context.Context) (err error) {
	if b.dsn, err = b.scratch(ctx); err != nil {
		return err
	}
	if b.watch, err = connect(ctx, b.dsn); err != nil {
		return err
	}
	const plain = `CREATE SCHEMA plain; CREATE TABLE plain.notifications (LIKE rowcast.notifications INCLUDING ALL);`
	_, err = b.watch.Exec(ctx, naiveSchema+outboxSchema+plain+appSchema)
	return err
}

// scratch creates a database with the schema of rowcast.
func (b *Bench) scratch(ctx context.Context) (dsn string, err error) {
	name := "rowcast_bench_" + strings.ToLower(rand.Text()[:10])
	// This statement is not cancelled with ctx. Otherwise the server could still create the database, and clear would
	// not remove it.
	creating, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	_, err = b.admin.Exec(creating, "CREATE DATABASE "+name+" TEMPLATE template0")
	if err != nil {
		return "", fmt.Errorf("create a database: %w", err)
	}
	b.created = append(b.created, name)
	dsn = withDatabase(b.DSN, name)
	_, _, err = sql.Migrate(ctx, dsn)
	return dsn, err
}

// withDatabase returns the connection string dsn with the database name instead of its own.
func withDatabase(dsn, name string) string {
	u, err := url.Parse(dsn)
	if err != nil || u.Scheme == "" {
		return dsn + " dbname=" + name // if dbname occurs twice, the last one applies
	}
	query := u.Query()
	query.Del("dbname")
	u.Path, u.RawQuery = "/"+name, query.Encode()
	return u.String()
}

// clear removes the databases of a scenario. It takes no context, because it must do so even after an interruption.
func (b *Bench) clear() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if b.watch != nil {
		_ = b.watch.Close(ctx)
	}
	for _, name := range b.created {
		if _, failed := b.admin.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); failed != nil {
			err = errors.Join(err, fmt.Errorf("remove the database %s: %w", name, failed))
		}
	}
	b.dsn, b.watch, b.created = "", nil, nil
	return err
}

// backends returns the CPU time of the sessions of a database whose application_name begins with application. It leaves
// out the session of b.watch. It fails with errUnmeasured if the sessions cannot be measured, for example if the server
// is on another machine.
func (b *Bench) backends(ctx context.Context, dsn, application string) (time.Duration, error) {
	config, err := connstring.Parse(dsn)
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
