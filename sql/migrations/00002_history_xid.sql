-- xid is the transaction that inserted the row of history, or in which rowcast migrate last adopted a copy. It equals xmin until
-- retention moves the horizon. A copy of the files (pg_upgrade, CREATE DATABASE ... TEMPLATE) keeps both. A restored dump keeps xid but
-- not xmin.
ALTER TABLE rowcast.history ADD COLUMN xid xid8 NOT NULL DEFAULT pg_current_xact_id();
