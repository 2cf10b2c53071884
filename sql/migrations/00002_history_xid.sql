-- +goose Up

-- The transaction that wrote history's row: its xmin, until retention moves the horizon. Copies of the files (pg_upgrade, CREATE
-- DATABASE ... TEMPLATE) keep it so; what a dump restores is written anew.
ALTER TABLE rowcast.history ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
