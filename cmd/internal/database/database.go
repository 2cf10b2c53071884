// Package database has the flag that names a database, and makes errors of connections readable for people.
package database

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Flags name a database. What they leave open, libpq's PG* variables and files decide.
type Flags struct {
	DatabaseURL string `name:"database-url" env:"ROWCAST_DATABASE_URL,DATABASE_URL" placeholder:"URL" group:"database" help:"The database, as postgres://user:password@host:5432/name or as host=… dbname=…. What it leaves open, PGHOST and libpq's other variables say."`
}

// Config returns the configuration of a connection.
func (f Flags) Config() (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(f.DatabaseURL)
	if err != nil {
		return nil, f.Explain(err)
	}
	return config, nil
}

// Explain returns an error that says in one line where the database was expected and why it could not be reached. The password is
// never in it.
func (f Flags) Explain(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
		// Not its own words: they quote what was given, and what cannot be parsed may hide a password anywhere.
		return errors.New("the database URL cannot be read: it should look like postgres://user:password@host:5432/name, with special characters in the password percent-encoded")
	}
	if failed, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		hint := ""
		if f.DatabaseURL == "" && os.Getenv("PGHOST") == "" && os.Getenv("PGSERVICE") == "" {
			hint = " (neither --database-url nor DATABASE_URL is given)"
		}
		if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "42704" { // undefined_object: a parameter
			hint = " (leave out of the database URL what is meant for another program)"
		}
		return fmt.Errorf("no connection to PostgreSQL at %s, database %q, user %q: %w%s",
			Addresses(failed.Config), cmp.Or(failed.Config.Database, failed.Config.User), failed.Config.User, reason(failed), hint)
	}
	return err
}

// Addresses returns the addresses that a connection tries.
func Addresses(config *pgconn.Config) string {
	var all []string
	add := func(host string, port uint16) {
		address := net.JoinHostPort(host, fmt.Sprint(port))
		if strings.HasPrefix(host, "/") {
			address = fmt.Sprintf("%s/.s.PGSQL.%d", host, port)
		}
		if !slices.Contains(all, address) { // once with TLS and once without
			all = append(all, address)
		}
	}
	add(config.Host, config.Port)
	for _, fallback := range config.Fallbacks {
		add(fallback.Host, fallback.Port)
	}
	return strings.Join(all, " or ")
}

// reason is why the last attempt to connect failed: what the server said, or the network.
func reason(err error) error {
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return said
	}
	if failed := NetworkError(err); failed != nil {
		return failed
	}
	return errors.Unwrap(err)
}

// NetworkError returns the part of an error that the network reported, or nil.
func NetworkError(err error) error {
	if failed, ok := errors.AsType[*net.OpError](err); ok {
		return failed.Err
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok {
		return unknown
	}
	return nil
}
