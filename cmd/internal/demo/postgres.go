package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/private"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/connstring"
)

// postgres is the database of the demo: a private server, or the database that the user names.
type postgres struct {
	dsn     string
	psql    string           // the command line that opens the database
	about   string           // sentences about where the rows are kept
	cluster *cluster.Cluster // the private server; nil if the user names a database
}

// open opens the database and installs or upgrades its schema.
func (d *Demo) open(ctx context.Context, progress *private.Progress) (*postgres, error) {
	if d.Database.DatabaseURL != "" {
		return d.openNamed(ctx, progress)
	}
	p, err := startPrivate(ctx, d.Fresh, progress)
	if err != nil {
		return nil, err
	}
	if _, _, err := (sql.Migrator{DSN: p.dsn, Inbox: true}).Migrate(ctx); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// openNamed opens the database that the user names.
func (d *Demo) openNamed(ctx context.Context, progress *private.Progress) (*postgres, error) {
	dsn := d.Database.DatabaseURL
	config, err := d.Database.Config()
	if err != nil {
		return nil, err
	}
	where := fmt.Sprintf("the database %q at %s", cmp.Or(config.Database, config.User), database.Addresses(&config.Config))
	progress.Step("using " + where + ", which the database URL names")
	from, to, err := (sql.Migrator{DSN: dsn, Inbox: true}).Migrate(ctx)
	if err != nil {
		return nil, err
	}
	if from != to {
		progress.Step(fmt.Sprintf("the schema rowcast in this database now has version %d", to))
	}
	return &postgres{
		dsn:  dsn,
		psql: "psql " + terminal.ShellQuote(connstring.WithoutPassword(dsn)),
		about: "The demo uses " + where + ", which the database URL names. This is not a private database: inserted rows and the schemas rowcast and rowcast_demo " +
			"stay in it, and every user of this machine can read its notifications on the page.",
	}, nil
}

// startPrivate starts the private server. It keeps the rows of earlier demos unless fresh is set.
func startPrivate(ctx context.Context, fresh bool, progress *private.Progress) (*postgres, error) {
	server, programs, err := private.Start(ctx, "demo", progress, func(c *cluster.Cluster) { c.Fresh = fresh })
	if errors.Is(err, cluster.ErrInUse) {
		return nil, fmt.Errorf("%w: another demo uses the private PostgreSQL; open the page of that demo, stop it, or give this demo a database URL", err)
	}
	if errors.Is(err, cluster.ErrOtherVersion) {
		return nil, fmt.Errorf("%w; install the version that created them, or delete them with rowcast demo --fresh", err)
	}
	if err != nil {
		return nil, err
	}
	dsn := server.DSN("postgres")
	return &postgres{
		dsn:  dsn,
		psql: psqlCommand(programs, dsn),
		about: fmt.Sprintf("The demo uses a private PostgreSQL %s, which stops when the demo stops. Its rows are kept in %s for the next demo; "+
			"rowcast demo --fresh deletes them.", programs.Version, server.Dir),
		cluster: server,
	}, nil
}

// close stops the private server.
func (p *postgres) close() error {
	if p.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return p.cluster.Stop(ctx)
}

// wait waits until the private server stops or ctx ends. It returns an error if the server stopped first, by itself.
// Without a private server, it returns nil at once.
func (p *postgres) wait(ctx context.Context) error {
	if p.cluster == nil {
		return nil
	}
	if err := p.cluster.Wait(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}
