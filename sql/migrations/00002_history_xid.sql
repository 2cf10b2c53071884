-- xid is the transaction that last wrote the row of history, apart from retention: this migration, or a later rowcast migrate. It equals
-- xmin until retention moves the horizon. A copy of the files (pg_upgrade, CREATE DATABASE ... TEMPLATE) keeps both. A restored dump
-- keeps xid but not xmin.
ALTER TABLE rowcast.history ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
