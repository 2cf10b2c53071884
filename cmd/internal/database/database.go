// Package database defines the flag --database-url. It also rewrites connection errors so that people understand them.
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

	"rowcast/sql/connstring"
)

// Flags name a database. For settings that they leave out, libpq's environment variables and files are used.
type Flags struct {
	DatabaseURL string `name:"database-url" env:"ROWCAST_DATABASE_URL,DATABASE_URL" placeholder:"URL" group:"database" help:"Connect to this database: postgresql://user:password@host:5432/name, or host=… dbname=…. Settings that are left out come from libpq's variables, such as PGHOST."`
}

// Config returns the configuration of a connection.
func (f Flags) Config() (*pgx.ConnConfig, error) {
	return connstring.Parse(f.DatabaseURL)
}

// Explain rewrites an error for people. The error of a failed connection becomes an error with the addresses that the
// connection may use, and the reason, but without the password. Explain returns other errors unchanged. The errors of
// Config need no change, because they contain no password.
func (f Flags) Explain(err error) error {
	if err == nil {
		return nil
	}
	if failed, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		hint := f.hint(failed)
		if hint != "" {
			hint = " (" + hint + ")"
		}
		return fmt.Errorf("cannot connect to PostgreSQL at %s, database %q, user %q: %w%s",
			Addresses(failed.Config), cmp.Or(failed.Config.Database, failed.Config.User), failed.Config.User, reason(failed), hint)
	}
	return err
}

// hint returns what to do about a failed connection, or "" if that is not known.
func (f Flags) hint(failed *pgconn.ConnectError) string {
	code := ""
	if refused, ok := errors.AsType[*pgconn.PgError](failed); ok {
		code = refused.Code
	}
	switch {
	case f.DatabaseURL == "" && os.Getenv("PGHOST") == "" && os.Getenv("PGSERVICE") == "":
		return "no database URL is given: use --database-url or DATABASE_URL"
	case code == "42704": // undefined_object: an unknown parameter
		return "remove the parameters that are meant for another program from the database URL"
	case code == "28P01" && failed.Config.Password == "": // invalid_password
		return "no password is given: put it into the database URL, PGPASSWORD or ~/.pgpass"
	case code == "28P01":
		return "check the user and the password in the database URL, PGPASSWORD or ~/.pgpass; in a URL, special characters are percent-encoded, such as %40 for @"
	case code == "28000": // invalid_authorization_specification: no such role, or no rule in pg_hba.conf
		return "check the user in the database URL or PGUSER, and whether pg_hba.conf of the server allows the connection"
	case code == "3D000": // invalid_catalog_name
		return "create the database with CREATE DATABASE, or name another one in the database URL or PGDATABASE"
	case errors.Is(failed, pgconn.ErrReadOnlyConnection) || errors.Is(failed, pgconn.ErrStandbyConnection):
		return "a server answers, but it is a standby or read-only, and target_session_attrs asks for the primary"
	}
	return ""
}

// Addresses returns the addresses that a connection may use, joined by "or".
func Addresses(config *pgconn.Config) string {
	var all []string
	add := func(host string, port uint16) {
		address := net.JoinHostPort(host, fmt.Sprint(port))
		if strings.HasPrefix(host, "/") {
			address = fmt.Sprintf("%s/.s.PGSQL.%d", host, port)
		}
		if !slices.Contains(all, address) { // an address occurs twice if it is tried with and without TLS
			all = append(all, address)
		}
	}
	add(config.Host, config.Port)
	for _, fallback := range config.Fallbacks {
		add(fallback.Host, fallback.Port)
	}
	return strings.Join(all, " or ")
}

// reason returns why a connection failed: an error of the server, or else of the network, or else the error inside err.
func reason(err error) error {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return refused
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
