-- disown() replaces the number in xid of a row that has it from elsewhere by 1, as described in migration 3. It runs with the
-- rights of the owner of the schema. Any role can make it the trigger of its own table. Until now, the type of the column xid
-- could then be a domain of that role, whose CHECK ran with these rights.
CREATE OR REPLACE FUNCTION rowcast.disown() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_RELID <> 'rowcast.notifications'::regclass THEN
        RETURN NEW;
    END IF;
    IF EXISTS (SELECT FROM rowcast.history h, pg_control_system() s WHERE h.system_identifier = s.system_identifier
        AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database())) THEN
        NEW.xid := '1';
    END IF;
    RETURN NEW;
END $$;

-- unwatch() drops the triggers and the function that watch() created. It reports whether there were any triggers. It
-- ignores functions that watch() has not created, because the owner of the table can give any name to a trigger of any
-- function. It keeps a function that the triggers of another table call, such as a copy of this table. It also drops the
-- functions of an earlier table with the same name, which was dropped.
CREATE OR REPLACE FUNCTION rowcast.unwatch(target regclass) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trigger name;
    watcher regprocedure;
    watchers regprocedure[] := '{}';
BEGIN
    PERFORM rowcast.watch_check(target, current_user);
    FOR trigger, watcher IN SELECT tgname, p.oid FROM pg_trigger JOIN pg_proc AS p ON p.oid = tgfoid
        WHERE tgrelid = target AND pronamespace = 'rowcast'::regnamespace AND proname ~ '^watch_[0-9a-f]{32}$' LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger, target);
        watchers := watchers || watcher;
    END LOOP;
    FOR watcher IN SELECT p.oid FROM pg_proc AS p
        WHERE pronamespace = 'rowcast'::regnamespace AND proname ~ '^watch_[0-9a-f]{32}$' AND prorettype = 'trigger'::regtype
        AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgfoid = p.oid)
        AND (p.oid = ANY (watchers) OR pg_has_role(proowner, 'USAGE') AND target::text =
            substring(split_part(prosrc, E'\n', 1) FROM '^-- rowcast\.watch (.*)$')::jsonb ->> 'table') LOOP
        EXECUTE format('DROP FUNCTION %s', watcher);
    END LOOP;
    RETURN watchers <> '{}';
END
$$;

-- watch_type() returns which type an expression of watch() must have. It returns NULL if kind is such a type, or a domain
-- over one.
CREATE OR REPLACE FUNCTION rowcast.watch_type(part text, kind regtype) RETURNS text LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base pg_type;
    arrays boolean := part = 'recipient';
BEGIN
    SELECT * INTO base FROM pg_type WHERE oid = kind;
    WHILE base.typtype = 'd' OR arrays AND base.typcategory = 'A' LOOP
        arrays := arrays AND base.typtype = 'd';
        SELECT * INTO base FROM pg_type WHERE oid = CASE base.typtype WHEN 'd' THEN base.typbasetype ELSE base.typelem END;
    END LOOP;
    RETURN CASE
        WHEN part = 'when' AND base.oid <> 'boolean'::regtype THEN 'boolean'
        WHEN part NOT IN ('recipient', 'event') OR base.typcategory = 'S' OR base.typtype = 'e'
            OR base.oid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype, 'uuid'::regtype) THEN NULL
        WHEN part = 'event' THEN 'text, an integer, numeric, a UUID or an enum'
        ELSE 'text, an integer, numeric, a UUID or an enum, or an array of these'
    END;
END
$$;

-- A trigger function of a watched table checks the owner of the table that calls it. The name pg_class must have its schema. Otherwise
-- a role that may call the function could make it a trigger of its own table, with a transition table of that name.
DO $$
DECLARE
    f regprocedure;
BEGIN
    FOR f IN SELECT oid FROM pg_proc WHERE pronamespace = 'rowcast'::regnamespace
        AND (proname = 'watch' OR proname ~ '^watch_[0-9a-f]{32}$' AND pg_has_role(proowner, 'USAGE')) LOOP
        EXECUTE replace(pg_get_functiondef(f), 'FROM pg_class WHERE oid = TG_RELID', 'FROM pg_catalog.pg_class WHERE oid = TG_RELID');
    END LOOP;
END $$;
