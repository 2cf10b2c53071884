// Package sql contains the schema rowcast as numbered migrations, and the rights that its roles need.
//
// [Migrate] installs or upgrades the schema. Programs built with this package need a schema whose version is at least
// [Version]. Each migration runs in its own transaction, so a failure leaves the schema at the last complete version.
// An advisory lock makes concurrent migrations run one after the other.
package sql

import (
	"context"
	"embed"
	"errors"
	"fmt"
)

const (
	// Channel is the NOTIFY channel for the wake-ups of the trigger and for messages sent with NOTIFY.
	Channel = "rowcast"

	// ParkLock1 and [ParkLock2] are the key of the park lock, an advisory lock. While hubs are idle in LISTEN, one of
	// them holds it. ParkLock1 is "rowc" in ASCII.
	ParkLock1 = 0x726f7763
	// ParkLock2 is the second half of the key: "ast" in ASCII, and a zero byte.
	ParkLock2 = 0x61737400

	// FirstXid is the first number that PostgreSQL assigns to a transaction (FirstNormalTransactionId). A row with a
	// lower number in xid is never sent. To mark rows that must not be sent, such as rows of a dump of another server,
	// the trigger disown and [Migrate] set xid to 1.
	FirstXid = 3

	// MaxID is above all ids that [Migrate] considers when it advances the sequence of the ids. Migrate ignores ids
	// from MaxID on, because an app can insert a row with an id near the highest bigint. After such an id, the sequence
	// would soon have no ids left, and every INSERT would fail. In practice, the sequence never reaches MaxID.
	MaxID = 1 << 62

	schema       = "rowcast"
	versionTable = "rowcast.migrations"
)

// Migrations are the numbered files that [Migrate] runs.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// ErrNoSchema reports that the schema is missing, is older than this program needs, or lacks the contents of
// rowcast.migrations or rowcast.history.
var ErrNoSchema = errors.New("schema rowcast is missing, incomplete or too old")

// Check returns [ErrNoSchema] if the schema is missing or below [Version], or if rowcast.history is empty. It returns
// [ErrRestored] if rowcast.notifications was restored from another server and must be corrected. [Migrate] corrects
// each of these.
func Check(ctx context.Context, db querier) error {
	if _, err := CheckVersion(ctx, db); err != nil {
		return err
	}
	return checkRestored(ctx, db)
}

// CheckVersion returns the version of the schema. It returns [ErrNoSchema] if the schema is missing or below [Version].
func CheckVersion(ctx context.Context, db querier) (version int64, err error) {
	var installed *string
	if err := db.QueryRow(ctx, "SELECT to_regclass($1)::text", versionTable).Scan(&installed); err != nil {
		return 0, fmt.Errorf("find the schema: %w", err)
	}
	if installed == nil {
		return 0, fmt.Errorf("%w: there is no table %s", ErrNoSchema, versionTable)
	}
	if err := db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable).Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	if version < Version() {
		return version, fmt.Errorf("%w: it has version %d, and version %d is needed", ErrNoSchema, version, Version())
	}
	return version, nil
}
