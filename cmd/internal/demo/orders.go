package demo

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/connstring"
)

// watchOrders creates the table rowcast_demo.orders, which stands for a table that an app already has, and watches it
// as rowcast watch does. The schema has a name of its own, because the database may belong to an app that has orders.
func watchOrders(ctx context.Context, dsn string) error {
	if err := createOrders(ctx, dsn); err != nil {
		return fmt.Errorf("create the table rowcast_demo.orders: %w", err)
	}
	watch := sql.Watch{
		Table:     "rowcast_demo.orders",
		Recipient: "customer",
		Event:     "'order'",
		Data:      "jsonb_build_object('msg', 'You ordered ' || product, 'order', id)",
	}
	if _, err := watch.Install(ctx, dsn); err != nil {
		return fmt.Errorf("watch the table rowcast_demo.orders: %w", err)
	}
	return nil
}

// insertOrder is one of the commands to try: an INSERT that notifies Alice through the watched table.
const insertOrder = `INSERT INTO rowcast_demo.orders
  (customer, product)
VALUES ('alice', 'a bicycle');`

// ordersTable creates the table unless it exists. The advisory lock makes demos on the same database wait for each
// other.
const ordersTable = `
SET LOCAL search_path = pg_catalog, pg_temp;
SELECT pg_advisory_xact_lock(hashtext('rowcast demo'));
CREATE SCHEMA IF NOT EXISTS rowcast_demo;
CREATE TABLE IF NOT EXISTS rowcast_demo.orders (
	id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	customer text NOT NULL,
	product text NOT NULL,
	ordered_at timestamptz NOT NULL DEFAULT now()
)`

// ordersOwners counts the other roles that own the schema or the table, except superusers. A trigger of such a role
// would run with the rights of each user who inserts an order.
const ordersOwners = `
SELECT count(*) FROM pg_roles WHERE NOT rolsuper AND rolname <> current_user AND oid IN (
	SELECT nspowner FROM pg_namespace WHERE nspname = 'rowcast_demo'
	UNION ALL SELECT relowner FROM pg_class WHERE oid = 'rowcast_demo.orders'::regclass)`

func createOrders(ctx context.Context, dsn string) error {
	config, err := connstring.Parse(dsn)
	if err != nil {
		return err
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, ordersTable); err != nil {
			return err
		}
		var others int
		if err := tx.QueryRow(ctx, ordersOwners).Scan(&others); err != nil {
			return err
		}
		if others > 0 {
			return errors.New("another role owns the table or its schema, and triggers of that role could run with your rights: DROP SCHEMA rowcast_demo CASCADE removes the table and the schema")
		}
		return nil
	})
}
