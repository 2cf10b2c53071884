-- recipients() returns the recipients that a value of the recipient expression stands for: the different elements of an
-- array, or a single value. NULL is nobody. The planner inlines the three variants.
CREATE FUNCTION rowcast.recipients(text) RETURNS SETOF text LANGUAGE sql IMMUTABLE AS
    'SELECT $1 WHERE $1 IS NOT NULL';
CREATE FUNCTION rowcast.recipients(anynonarray) RETURNS SETOF text LANGUAGE sql STABLE AS
    'SELECT $1::pg_catalog.text WHERE $1 IS NOT NULL';
CREATE FUNCTION rowcast.recipients(anyarray) RETURNS SETOF text LANGUAGE sql STABLE AS
    'SELECT DISTINCT r::pg_catalog.text FROM pg_catalog.unnest($1) AS u(r) WHERE r IS NOT NULL';

-- watched() returns the watched tables and the options of watch(). is_enabled is false if a trigger is disabled or was
-- dropped, or if the table has another owner than the trigger function.
CREATE FUNCTION rowcast.watched() RETURNS TABLE (target regclass, watcher regprocedure, options jsonb, is_enabled boolean)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT tgrelid::regclass, tgfoid::regprocedure, options,
        bool_and(tgenabled IN ('O', 'A')) AND count(*) = jsonb_array_length(options -> 'on') AND relowner = proowner
    FROM pg_trigger JOIN pg_proc p ON p.oid = tgfoid JOIN pg_class c ON c.oid = tgrelid
        CROSS JOIN LATERAL CAST(substring(split_part(prosrc, E'\n', 1) FROM '^-- rowcast\.watch (.*)$') AS jsonb) AS options
    WHERE pronamespace = 'rowcast'::regnamespace AND tgname IN ('rowcast_watch_insert', 'rowcast_watch_update', 'rowcast_watch_delete')
    GROUP BY tgrelid, tgfoid, options, relowner, proowner
$$;

-- watch_check() raises an error if the relation is not a table that can be watched, or if the role may not watch it.
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
    ELSIF relation.relnamespace IN ('rowcast'::regnamespace, 'pg_catalog'::regnamespace) OR relation.relpersistence = 't' THEN
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

-- watch_query() returns a query that evaluates expressions for the rows of source, which are pairs of composite values: n
-- and o. The inner SELECT finds a column of n before one of o, so that a name without n or o is a column of n.
CREATE FUNCTION rowcast.watch_query(tg_op text, source text, expressions text, condition text, result text) RETURNS text
    LANGUAGE sql IMMUTABLE AS $$
    SELECT pg_catalog.format('SELECT %s FROM (SELECT %L::pg_catalog.text AS tg_op, p.* FROM (%s) AS p) AS p'
        ' CROSS JOIN LATERAL (SELECT (p.rowcast_o).*) AS o'
        ' CROSS JOIN LATERAL (SELECT %s FROM (SELECT (p.rowcast_n).*) AS n WHERE %s) AS s', result, tg_op, source, expressions, condition)
$$;

-- unwatch() drops the triggers and the function that watch() created. It reports whether there were any.
CREATE FUNCTION rowcast.unwatch(target regclass) RETURNS boolean LANGUAGE plpgsql
    SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    trigger name;
    watcher regprocedure;
    was_watched boolean := false;
BEGIN
    PERFORM rowcast.watch_check(target);
    FOR trigger, watcher IN SELECT tgname, tgfoid FROM pg_trigger
        WHERE tgrelid = target AND tgname IN ('rowcast_watch_insert', 'rowcast_watch_update', 'rowcast_watch_delete') LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', trigger, target);
        was_watched := true;
    END LOOP;
    IF was_watched THEN
        EXECUTE format('DROP FUNCTION %s', watcher);
    END IF;
    RETURN was_watched;
END
$$;

-- watch() makes statements on a table of an app insert notifications too. "on" says which statements: insert, update,
-- delete. recipient, event, data and "when" are SQL expressions over the row n: the new row, or for DELETE the deleted
-- one. o is the row before an UPDATE or DELETE; for INSERT, its columns are NULL. tg_op is INSERT, UPDATE or DELETE. data
-- of any type becomes JSON, as by to_jsonb(). Names outside pg_catalog need their schema.
--
-- If an expression fails, the statement fails too (on_error 'fail'), or it sends nothing and gets a warning ('skip').
-- Watching a table again replaces the options. The body of the trigger function begins with a comment that has the options
-- as JSON, which pg_dump keeps.
--
-- The trigger function runs with the rights of the owner of the table, who gets the rights of a sender. If it ran with the
-- rights of the owner of the schema, the owner of the table could use them: in a cast of the type of a column.
CREATE FUNCTION rowcast.watch(target regclass, recipient text, event text DEFAULT '''message''',
    data text DEFAULT 'to_jsonb(n.*)', "on" text[] DEFAULT '{insert}', "when" text DEFAULT 'true', on_error text DEFAULT 'fail')
    RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    options jsonb := jsonb_build_object('when', "when", 'recipient', recipient, 'event', event, 'data', data, 'on', "on", 'on_error', on_error);
    -- A line break before the closing parenthesis ends a comment in an expression.
    parts jsonb := jsonb_build_object('when', format(E'(%s\n)::boolean', "when"), 'recipient', format(E'(%s\n)', recipient),
        'event', format(E'(%s\n)::text', event), 'data', format(E'(%s\n)', data));
    -- The rows of a statement, in their order. PostgreSQL appends an updated row to both transition tables at once, so both
    -- have the same order.
    sources constant jsonb := jsonb_build_object(
        'insert', 'SELECT rowcast_a AS rowcast_n, rowcast_b AS rowcast_o FROM rowcast_new AS rowcast_a LEFT JOIN rowcast_new AS rowcast_b ON false',
        'update', 'SELECT rowcast_n, rowcast_o FROM (SELECT row_number() OVER () AS i, rowcast_a AS rowcast_n FROM rowcast_new AS rowcast_a) AS a'
            ' JOIN (SELECT row_number() OVER () AS i, rowcast_b AS rowcast_o FROM rowcast_old AS rowcast_b) AS b USING (i) ORDER BY i',
        'delete', 'SELECT rowcast_a AS rowcast_n, rowcast_a AS rowcast_o FROM rowcast_old AS rowcast_a');
    watcher name := 'watch_' || replace(gen_random_uuid()::text, '-', '');
    owner name := (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = target);
    lends boolean;
    part text;
    operation text;
    body text;
BEGIN
    PERFORM rowcast.watch_check(target);
    IF on_error IS NULL OR on_error NOT IN ('fail', 'skip') THEN
        RAISE EXCEPTION 'rowcast: on_error is %, want fail or skip', quote_nullable(on_error) USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(cardinality("on"), 0) = 0 OR NOT "on" <@ ARRAY['insert', 'update', 'delete'] OR
        cardinality("on") <> (SELECT count(DISTINCT o) FROM unnest("on") AS u(o)) THEN
        RAISE EXCEPTION 'rowcast: "on" is %, want an array of one or more of insert, update and delete', quote_nullable("on"::text)
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOREACH part IN ARRAY ARRAY['when', 'recipient', 'event', 'data'] LOOP
        IF coalesce(btrim(options ->> part), '') = '' THEN
            RAISE EXCEPTION 'rowcast: the % expression is empty', part USING ERRCODE = 'invalid_parameter_value';
        END IF;
        BEGIN
            EXECUTE rowcast.watch_query('INSERT', format('SELECT rowcast_a AS rowcast_n, rowcast_a AS rowcast_o FROM %s AS rowcast_a WHERE false', target),
                (parts ->> part) || ' AS v', 'true',
                CASE part WHEN 'recipient' THEN 'rowcast.recipients(v)' WHEN 'data' THEN 'to_jsonb(v)' ELSE 'v' END);
        EXCEPTION WHEN OTHERS THEN
            RAISE EXCEPTION 'rowcast: watching %: % expression % failed: %', target, part, options ->> part, SQLERRM USING ERRCODE = SQLSTATE;
        END;
    END LOOP;
    body := '-- rowcast.watch ' || options::text || $body$
#variable_conflict use_column
DECLARE
    rowcast_part text;
    rowcast_place text := 'INSERT INTO rowcast.notifications';
    rowcast_text text;
    rowcast_code text;
BEGIN
$body$;
    FOREACH operation IN ARRAY "on" LOOP
        body := body || format($body$
    IF TG_OP = %L THEN%s
        INSERT INTO rowcast.notifications (recipient, event, data) %s;
    END IF;
$body$, upper(operation), CASE operation WHEN 'update' THEN $body$
        IF (SELECT count(*) FROM rowcast_new) <> (SELECT count(*) FROM rowcast_old) THEN
            RAISE EXCEPTION 'a BEFORE trigger of a partition skipped a row that moved to the partition';
        END IF;$body$ END, rowcast.watch_query(upper(operation), sources ->> operation,
            format('%s AS r, %s AS e, %s AS d', parts ->> 'recipient', parts ->> 'event', parts ->> 'data'), parts ->> 'when', 't.r, s.e, to_jsonb(s.d)')
            || ' CROSS JOIN LATERAL rowcast.recipients(s.r) AS t(r)');
    END LOOP;
    body := body || format($body$
    RETURN NULL;
EXCEPTION WHEN OTHERS THEN
    rowcast_text := SQLERRM;
    rowcast_code := SQLSTATE;
    FOREACH rowcast_part IN ARRAY ARRAY['when', 'recipient', 'event', 'data'] LOOP
        BEGIN
            EXECUTE rowcast.watch_query(TG_OP, %L::jsonb ->> lower(TG_OP), (%L::jsonb ->> rowcast_part) || ' AS v',
                CASE rowcast_part WHEN 'when' THEN 'true' ELSE %L END, 'v');
        EXCEPTION WHEN OTHERS THEN
            rowcast_place := rowcast_part || ' expression ' || (%L::jsonb ->> rowcast_part);
            EXIT;
        END;
    END LOOP;
    RAISE %s USING ERRCODE = rowcast_code,
        MESSAGE = format('rowcast: watching %%s: %%s failed: %%s', TG_RELID::regclass, rowcast_place, rowcast_text);
    RETURN NULL;
END
$body$, sources, parts, parts ->> 'when', options, CASE on_error WHEN 'skip' THEN 'WARNING' ELSE 'EXCEPTION' END);

    -- Two sessions that grant rights on one object at the same time fail, so this takes the lock of migrations.
    PERFORM pg_advisory_xact_lock(4097083626);
    PERFORM rowcast.unwatch(target);
    EXECUTE format('CREATE FUNCTION rowcast.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS %L',
        watcher, body);
    EXECUTE format('REVOKE ALL ON FUNCTION rowcast.%I() FROM PUBLIC', watcher);
    FOREACH operation IN ARRAY "on" LOOP
        EXECUTE format('CREATE TRIGGER rowcast_watch_%s AFTER %s ON %s REFERENCING %s FOR EACH STATEMENT EXECUTE FUNCTION rowcast.%I()',
            operation, operation, target, CASE operation WHEN 'insert' THEN 'NEW TABLE AS rowcast_new' WHEN 'delete' THEN 'OLD TABLE AS rowcast_old'
                ELSE 'NEW TABLE AS rowcast_new OLD TABLE AS rowcast_old' END, watcher);
    END LOOP;
    IF owner = current_user THEN
        RETURN;
    END IF;
    EXECUTE format('GRANT USAGE ON SCHEMA rowcast TO %I', owner);
    EXECUTE format('GRANT INSERT (recipient, event, data) ON rowcast.notifications TO %I', owner);
    -- A role that becomes the owner of a function must have the right CREATE on the schema at this moment.
    lends := NOT has_schema_privilege(owner, 'rowcast', 'CREATE');
    IF lends THEN
        EXECUTE format('GRANT CREATE ON SCHEMA rowcast TO %I', owner);
    END IF;
    EXECUTE format('ALTER FUNCTION rowcast.%I() OWNER TO %I', watcher, owner);
    IF lends THEN
        EXECUTE format('REVOKE CREATE ON SCHEMA rowcast FROM %I', owner);
    END IF;
END
$watch$;
