package dbtest

// Traps is SQL that creates traps in the schema public: functions and operators that no code of rowcast may call. For
// each function and binary operator of pg_catalog, there is a trap with the same name and arguments, if PostgreSQL
// permits it. Further traps match the types of some calls better than the functions and operators of pg_catalog. A trap
// that is called raises an error. It also advances the sequence public.caught, which a rollback does not undo.
const Traps = `DO $do$
DECLARE
	f record;
	body CONSTANT text := 'LANGUAGE plpgsql AS $f$ BEGIN
		PERFORM pg_catalog.nextval(''public.caught'');
		RAISE EXCEPTION ''a trap of another role was called'';
	END $f$';
	n int := 0;
BEGIN
	CREATE SEQUENCE public.caught;
	GRANT USAGE ON SEQUENCE public.caught TO PUBLIC;
	FOR f IN SELECT proname AS name, oidvectortypes(proargtypes) AS args,
			CASE WHEN proretset THEN 'SETOF ' ELSE '' END || format_type(prorettype, NULL) AS result
			FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND prokind = 'f'
		UNION ALL VALUES ('concat_ws', 'text, bigint, oid', 'text'), ('concat_ws', 'text, text, bigint', 'text'),
			('concat_ws', 'text, bigint, bigint', 'text'), ('set_config', 'text, text, bool', 'text'),
			('pg_notify', 'text, varchar', 'void'), ('unnest', 'text[]', 'SETOF text'), ('format', 'text, text', 'text'),
			('format', 'text, bigint', 'text'), ('concat', 'text, text', 'text'), ('concat', 'bigint, oid', 'text')
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS %s %s', f.name, f.args, f.result, body);
			n := n + 1;
		EXCEPTION WHEN OTHERS THEN NULL; -- for example, plpgsql does not support the types of this function
		END;
	END LOOP;
	FOR f IN SELECT oprname AS name, format_type(oprleft, NULL) AS lhs, format_type(oprright, NULL) AS rhs, format_type(oprresult, NULL) AS result
			FROM pg_operator WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprkind = 'b'
		UNION SELECT op, l, r, 'boolean' FROM pg_catalog.unnest(ARRAY['=', '<', '>', '<=', '>=', '<>']) op,
			pg_catalog.unnest(ARRAY['smallint', 'integer', 'bigint', 'oid', 'text', 'name', 'xid8', 'regclass']) l,
			pg_catalog.unnest(ARRAY['smallint', 'integer', 'bigint', 'oid', 'text', 'name', 'xid8', 'regclass']) r
	LOOP
		BEGIN
			EXECUTE format('CREATE FUNCTION public.trap_%s(%s, %s) RETURNS %s %s', n, f.lhs, f.rhs, f.result, body);
			EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.trap_%s)', f.name, f.lhs, f.rhs, n);
			n := n + 1;
		EXCEPTION WHEN OTHERS THEN NULL;
		END;
	END LOOP;
	IF n < 2500 THEN
		RAISE EXCEPTION 'only % traps were created, want at least 2500', n;
	END IF;
END $do$`

// TemporaryTraps is SQL that creates types and tables in the schema pg_temp of a session. PostgreSQL searches pg_temp
// before pg_catalog for types and tables, unless the search_path names pg_temp. Behind a pooler, another client with
// the same role can leave them in a session that the hub uses next.
const TemporaryTraps = `CREATE TYPE pg_temp.text AS ENUM ('trap'); CREATE TYPE pg_temp.xid8 AS ENUM ('trap');
	CREATE TYPE pg_temp.pg_snapshot AS ENUM ('trap'); CREATE TYPE pg_temp.regclass AS ENUM ('trap');
	CREATE TYPE pg_temp.jsonb AS ENUM ('trap'); CREATE TYPE pg_temp.name AS ENUM ('trap'); CREATE TYPE pg_temp.oid AS ENUM ('trap');
	CREATE TEMP TABLE pg_locks (trap int); CREATE TEMP TABLE pg_database (trap int); CREATE TEMP TABLE pg_class (trap int);`
