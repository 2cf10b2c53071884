-- recipients() returns the recipients that the expression of a watched table stands for: the elements of an array, once
-- each, or a single value. NULL is nobody. The three variants are plain SQL, which the planner inlines.
CREATE FUNCTION rowcast.recipients(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS
    'SELECT $1 WHERE $1 IS NOT NULL';
CREATE FUNCTION rowcast.recipients(anynonarray) RETURNS SETOF text LANGUAGE sql STABLE AS
    'SELECT $1::pg_catalog.text WHERE $1 IS NOT NULL';
CREATE FUNCTION rowcast.recipients(anyarray) RETURNS SETOF text LANGUAGE sql STABLE AS
    'SELECT DISTINCT r::pg_catalog.text FROM pg_catalog.unnest($1) AS u(r) WHERE r IS NOT NULL';

-- watch_check() raises an error if a role may not watch the table or if rows of the relation cannot be watched.
CREATE FUNCTION rowcast.watch_check(target regclass) RETURNS void LANGUAGE plpgsql STABLE
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation pg_class;
BEGIN
    SELECT * INTO relation FROM pg_class WHERE oid = target;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'rowcast: the table to watch is NULL or does not exist' USING ERRCODE = 'undefined_table';
    ELSIF relation.relkind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION 'rowcast: % is not a table', target USING ERRCODE = 'wrong_object_type',
            HINT = 'Watch the table under a view. A foreign table cannot be watched.';
    ELSIF relation.relnamespace = 'rowcast'::regnamespace OR relation.relpersistence = 't' THEN
        RAISE EXCEPTION 'rowcast: % cannot be watched', target USING ERRCODE = 'wrong_object_type',
            HINT = 'Watch a permanent table of an app.';
    ELSIF NOT has_schema_privilege('rowcast', 'CREATE') THEN
        RAISE EXCEPTION 'rowcast: role % may not watch tables', current_user USING ERRCODE = 'insufficient_privilege',
            HINT = 'Only the owner of the schema rowcast may watch tables.';
    ELSIF NOT pg_has_role(relation.relowner, 'USAGE') THEN
        RAISE EXCEPTION 'rowcast: role % may not watch %', current_user, target USING ERRCODE = 'insufficient_privilege',
            HINT = format('Run this first: GRANT %I TO %I', pg_get_userbyid(relation.relowner), current_user);
    END IF;
END
$$;

-- unwatch() removes the trigger and the function that watch() created. It reports whether the table was watched.
CREATE FUNCTION rowcast.unwatch(target regclass) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watcher regprocedure;
BEGIN
    PERFORM rowcast.watch_check(target);
    SELECT tgfoid INTO watcher FROM pg_trigger WHERE tgrelid = target AND tgname = 'rowcast_watch_insert';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TRIGGER rowcast_watch_insert ON %s', target);
    EXECUTE format('DROP FUNCTION %s', watcher);
    RETURN true;
END
$$;

-- watch() makes each INSERT into a table of an app insert notifications too. recipient, event, data and "when" are SQL
-- expressions over the new row n. data of any type becomes JSON, as by to_jsonb(). The expressions run with the rights of the owner of the schema rowcast, and names
-- outside pg_catalog need their schema. If an expression fails, the app's INSERT fails (on_error 'fail'), or
-- the statement sends nothing and gets a warning ('skip'). Watching a table again replaces the options. The body of the
-- trigger function begins with the options as JSON in a comment, which pg_dump keeps.
CREATE FUNCTION rowcast.watch(target regclass, recipient text, event text DEFAULT '''message''',
    data text DEFAULT 'to_jsonb(n.*)', "when" text DEFAULT 'true', on_error text DEFAULT 'fail') RETURNS void LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    options jsonb := jsonb_build_object('when', "when", 'recipient', recipient, 'event', event, 'data', data, 'on_error', on_error);
    -- A line break before the closing parenthesis ends a comment in an expression.
    parts jsonb := jsonb_build_object('when', format(E'(%s\n)::boolean', "when"), 'recipient', format(E'(%s\n)', recipient),
        'event', format(E'(%s\n)::text', event), 'data', format(E'(%s\n)', data));
    watcher name := 'watch_' || replace(gen_random_uuid()::text, '-', '');
    part text;
    body text := $body$
#variable_conflict use_column
DECLARE
    rowcast_part text;
    rowcast_place text := 'INSERT INTO rowcast.notifications';
    rowcast_text text;
    rowcast_code text;
BEGIN
    INSERT INTO rowcast.notifications (recipient, event, data)
    SELECT t.r, s.e, to_jsonb(s.d)
    FROM (SELECT %s AS r, %s AS e, %s AS d FROM n WHERE %s) AS s CROSS JOIN LATERAL rowcast.recipients(s.r) AS t(r);
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    rowcast_text := SQLERRM;
    rowcast_code := SQLSTATE;
    FOREACH rowcast_part IN ARRAY ARRAY['when', 'recipient', 'event', 'data'] LOOP
        BEGIN
            EXECUTE 'SELECT ' || (%L::jsonb ->> rowcast_part) || ' FROM n' || CASE rowcast_part WHEN 'when' THEN '' ELSE %L END;
        EXCEPTION WHEN OTHERS THEN
            rowcast_place := rowcast_part || ' expression ' || (%L::jsonb ->> rowcast_part);
            EXIT;
        END;
    END LOOP;
    RAISE %s USING ERRCODE = rowcast_code,
        MESSAGE = format('rowcast: watching %%s: %%s failed: %%s', TG_RELID::regclass, rowcast_place, rowcast_text);
    RETURN NULL;
END
$body$;
BEGIN
    PERFORM rowcast.watch_check(target);
    IF on_error IS NULL OR on_error NOT IN ('fail', 'skip') THEN
        RAISE EXCEPTION 'rowcast: on_error is %, want fail or skip', quote_nullable(on_error) USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH part IN ARRAY ARRAY['when', 'recipient', 'event', 'data'] LOOP
        IF coalesce(btrim(options ->> part), '') = '' THEN
            RAISE EXCEPTION 'rowcast: the % expression is empty', part USING ERRCODE = 'invalid_parameter_value';
        END IF;
        BEGIN
            EXECUTE format(CASE part WHEN 'recipient' THEN 'SELECT r FROM (SELECT %s AS v FROM %s AS n WHERE false) AS s, rowcast.recipients(v) AS r'
                WHEN 'data' THEN 'SELECT to_jsonb(v) FROM (SELECT %s AS v FROM %s AS n WHERE false) AS s'
                ELSE 'SELECT %s FROM %s AS n WHERE false' END, parts ->> part, target);
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'rowcast: watching %: % expression % failed: %', target, part, options ->> part, SQLERRM USING ERRCODE = SQLSTATE;
        END;
    END LOOP;
    PERFORM rowcast.unwatch(target);
    body := '-- rowcast.watch ' || options::text || format(body, parts ->> 'recipient', parts ->> 'event', parts ->> 'data', parts ->> 'when',
        parts, ' WHERE ' || (parts ->> 'when'), options, CASE on_error WHEN 'skip' THEN 'WARNING' ELSE 'EXCEPTION' END);
    EXECUTE format('CREATE FUNCTION rowcast.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
        watcher, body);
    EXECUTE format('REVOKE ALL ON FUNCTION rowcast.%I() FROM PUBLIC', watcher);
    EXECUTE format('CREATE TRIGGER rowcast_watch_insert AFTER INSERT ON %s REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION rowcast.%I()',
        target, watcher);
END
$watch$;
