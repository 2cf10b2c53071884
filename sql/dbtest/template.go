package dbtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/cluster"
)

// templateLock is the advisory lock under which templates are made.
const templateLock = 7204815

// migratedTemplate makes sure that the database exists from which those of the
// tests are copied, and returns its name.
func migratedTemplate(ctx context.Context, server *cluster.Cluster) (string, error) {
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if shared.template != "" {
		return shared.template, nil
	}
	name, err := templateName(sql.Migrations)
	if err != nil {
		return "", err
	}
	if err := makeTemplate(ctx, server, name); err != nil {
		return "", err
	}
	shared.template = name
	return name, nil
}

// templateName changes with the migrations, so that a template made by others
// is not used for these.
func templateName(files fs.FS) (string, error) {
	sum := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(files, path)
		fmt.Fprintf(sum, "%s %d\n%s", path, len(text), text)
		return err
	})
	return "template_" + hex.EncodeToString(sum.Sum(nil))[:16], err
}

func makeTemplate(ctx context.Context, server *cluster.Cluster, name string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx) // and with it the lock
	if _, err := conn.Exec(ctx, "SELECT pg_advisory_lock($1)", templateLock); err != nil {
		return err
	}
	var there bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&there)
	if err != nil || there {
		return err
	}
	// Under another name until it is whole: its maker may be killed.
	const unfinished = "template_unfinished"
	err = admin(ctx, server, "DROP DATABASE IF EXISTS "+unfinished+" WITH (FORCE)", "CREATE DATABASE "+unfinished+" TEMPLATE template0")
	if err != nil {
		return err
	}
	if _, _, err := sql.Migrate(ctx, server.DSN(unfinished)); err != nil {
		return err
	}
	return admin(ctx, server,
		"ALTER DATABASE "+unfinished+" WITH ALLOW_CONNECTIONS false",
		"ALTER DATABASE "+unfinished+" RENAME TO "+name)
}

// sweep drops what killed test binaries left, and templates of other
// migrations. Only for an owner that is alone, as nobody uses them then.
func sweep(ctx context.Context, server *cluster.Cluster) error {
	current, err := templateName(sql.Migrations)
	if err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, `SELECT datname FROM pg_database
		WHERE datname <> $1 AND (starts_with(datname, 'test_') OR starts_with(datname, 'template_'))`, current)
	if err != nil {
		return err
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, name := range names {
		err = errors.Join(err, drop(ctx, server, name))
	}
	return err
}
