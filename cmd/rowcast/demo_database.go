package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/private"
	"rowcast/sql/cluster"
)

// demoDatabase is the database of the demo: a private one, or the one that the user names.
type demoDatabase struct {
	dsn     string
	psql    string           // the command line that opens it
	about   string           // a sentence on whose it is
	cluster *cluster.Cluster // nil if it is not ours
}

// theirDatabase is the database that the user names.
func theirDatabase(dsn string, config *pgx.ConnConfig) *demoDatabase {
	return &demoDatabase{
		dsn:  dsn,
		psql: "psql " + shellQuote(withoutPassword(dsn, config)),
		about: fmt.Sprintf("This is not a private database: the demo uses %q at %s, as the database URL says. What is inserted stays there, "+
			"and whoever uses this machine can read its notifications here.", config.Database, database.Addresses(&config.Config)),
	}
}

// withoutPassword is what the page and the terminal may show of a connection string; psql asks for the rest.
func withoutPassword(dsn string, config *pgx.ConnConfig) string {
	if u, err := url.Parse(dsn); err == nil && u.Scheme != "" {
		if u.User != nil {
			u.User = url.User(u.User.Username())
		}
		query := u.Query()
		query.Del("password")
		query.Del("sslpassword")
		u.RawQuery = query.Encode()
		return u.String()
	}
	if !strings.Contains(dsn, "password") {
		return dsn
	}
	return conninfo(config.Host, strconv.Itoa(int(config.Port)), config.User, config.Database)
}

// conninfo is a connection string of libpq's: https://www.postgresql.org/docs/current/libpq-connect.html
func conninfo(host, port, user, database string) string {
	var words []string
	for _, word := range [][2]string{{"host", host}, {"port", port}, {"user", user}, {"dbname", database}} {
		if strings.ContainsAny(word[1], ` '\`) || word[1] == "" {
			word[1] = "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(word[1]) + "'"
		}
		words = append(words, word[0]+"="+word[1])
	}
	return strings.Join(words, " ")
}

// privateDatabase starts a PostgreSQL of the demo's own, with the files of earlier runs unless fresh.
func privateDatabase(ctx context.Context, fresh bool, progress *private.Progress) (*demoDatabase, error) {
	server, programs, err := private.Start(ctx, "demo", progress, func(c *cluster.Cluster) { c.Fresh = fresh })
	if errors.Is(err, cluster.ErrInUse) {
		return nil, fmt.Errorf("%w: only one demo runs at a time; use its page, or stop it first", err)
	}
	if err != nil {
		return nil, err
	}
	dsn := server.DSN("postgres")
	return &demoDatabase{
		dsn:     dsn,
		psql:    psqlCommand(programs, dsn),
		about:   fmt.Sprintf("A private PostgreSQL %s, which ends with the demo. Its rows stay in %s until rowcast demo --fresh.", programs.Version, server.Dir),
		cluster: server,
	}, nil
}

// psqlCommand is a command line to be pasted in a shell. It names the socket, for which no password is needed.
func psqlCommand(programs cluster.Programs, dsn string) string {
	program := "psql"
	if _, err := exec.LookPath(program); err != nil {
		// Not every package puts it on PATH, and a download may not have it at all.
		if found, err := exec.LookPath(filepath.Join(programs.Dir, program)); err == nil {
			program = found
		}
	}
	if u, err := url.Parse(dsn); err == nil && u.Query().Has("host") {
		dsn = conninfo(u.Query().Get("host"), u.Query().Get("port"), u.User.Username(), strings.TrimPrefix(u.Path, "/"))
	}
	return shellQuote(program) + " " + shellQuote(dsn)
}

// shellQuote quotes for a POSIX shell what needs it.
func shellQuote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// close stops the private PostgreSQL.
func (d *demoDatabase) close() error {
	if d.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	return d.cluster.Stop(ctx)
}

// awaitEnd returns an error when the private PostgreSQL has ended by itself.
func (d *demoDatabase) awaitEnd(ctx context.Context) error {
	if d.cluster == nil {
		return nil
	}
	if err := d.cluster.Wait(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// A demoCommand is something to try, as the page and the terminal show it.
type demoCommand struct{ Title, Text string }

func (d *demoDatabase) commands() []demoCommand {
	return []demoCommand{
		{"Open the database", d.psql},
		{"Tell Alice", `INSERT INTO rowcast.notifications
  (recipient, event, data)
VALUES ('alice', 'notify',
  '{"msg": "Bob liked your post"}');`},
		{"Tell everyone, by hand: nothing is stored", `NOTIFY rowcast, 'hello from psql';`},
	}
}
