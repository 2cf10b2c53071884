-- server() identifies the server and the database. Some administrators let only a few roles call pg_control_system(). With SECURITY DEFINER,
-- only the owner of the schema must be one of them.
CREATE FUNCTION rowcast.server(OUT system_identifier bigint, OUT database oid) LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp AS $$
    SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()) FROM pg_control_system()
$$;

CREATE OR REPLACE FUNCTION rowcast.database_tag() RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT rowcast.tag(concat_ws(' ', system_identifier, database)) FROM rowcast.server()
$$;
