package connstring

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// A form is the beginning of a connection string that belongs to another program.
type form struct{ prefix, program, advice string }

const asURL = "write it as postgresql://user:password@host:5432/name"

// forms are the forms that checkFormat recognizes. It ignores case.
var forms = []form{
	{"jdbc:", "JDBC", `leave out "jdbc:", and write postgresql://user:password@host:5432/name`},
	{"r2dbc:", "R2DBC", `leave out "r2dbc:", and write postgresql://user:password@host:5432/name`},
	{"prisma://", "Prisma Accelerate", asURL + ", which Prisma calls the direct URL"},
	{"prisma+postgres://", "Prisma Postgres", asURL + ", which Prisma calls the direct URL"},
	{"pgsql://", "PHP", asURL},
	{"pdo-pgsql://", "Doctrine", asURL},
	{"pdo_pgsql://", "Doctrine", asURL},
	{"pgsql:", "PDO", `leave out "pgsql:", and replace each semicolon by a space`},
	{"postgis://", "GeoDjango", asURL},
	{"ecto://", "Ecto", asURL},
	{"driver=", "ODBC", asURL},
	{"dsn=", "ODBC", asURL},
	{"psql ", "a command of a shell", `leave out "psql", and the quotes around the URL`},
	{`"`, "a quote", "leave out the quotes, which docker --env-file keeps"},
	{"'", "a quote", "leave out the quotes, which docker --env-file keeps"},
}

var (
	sqlalchemy = regexp.MustCompile(`^postgres(ql)?\+([a-z0-9_]+)://`)
	adoNET     = regexp.MustCompile(`(?i)^\s*(host|server|data source|user id|username)\s*=[^=;]*;`)
	scheme     = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+._-]*://`)
)

// drivers are drivers of SQLAlchemy for PostgreSQL. An error quotes no other text as a driver, because the text may be
// a password.
var drivers = []string{"aiopg", "asyncpg", "pg8000", "psycopg", "psycopg2", "psycopg2cffi", "psycopg_async", "pygresql", "pypostgresql"}

// checkFormat returns an error if a connection string has the form of another program, or no form that libpq reads.
func checkFormat(s string) error {
	for _, f := range forms {
		if len(s) >= len(f.prefix) && strings.EqualFold(s[:len(f.prefix)], f.prefix) {
			return Error(fmt.Sprintf("the database URL begins with %s (%s): %s", strings.TrimSpace(f.prefix), f.program, f.advice))
		}
	}
	if found := sqlalchemy.FindStringSubmatch(s); found != nil {
		begin := "postgres" + found[1] + "+…://"
		if slices.Contains(drivers, found[2]) {
			begin = found[0]
		}
		return Error(fmt.Sprintf("the database URL begins with %s (SQLAlchemy): write postgresql:// instead", begin))
	}
	if adoNET.MatchString(s) {
		return Error("the database URL has the form of Npgsql (ADO.NET): " + asURL)
	}
	if !isURL(s) && (scheme.MatchString(s) || strings.TrimSpace(s) != "" && !strings.Contains(s, "=")) {
		return Error("the database URL does not begin with postgresql:// or postgres://: " + asURL)
	}
	return nil
}

// foreign has parameters of other programs, by program. PostgreSQL refuses all of them from a client. It has
// settings with the names ssl and port, but no session can set these.
var foreign = map[string]string{
	"Prisma": "connection_limit max_connection_lifetime max_idle_connection_lifetime pgbouncer pool_timeout schema single_use_connections " +
		"socket_timeout sslaccept sslidentity statement_cache_size",
	"Rails": "adapter advisory_locks checkout_timeout database_tasks encoding idle_timeout insert_returning keepalive max_age " +
		"migrations_paths min_connections min_messages pool pool_jitter prepared_statements query_cache reaping_frequency replica " +
		"schema_dump schema_search_path statement_limit strict username variables",
	"SQLAlchemy": "async_fallback max_overflow pool_pre_ping pool_recycle prepared_statement_cache_size prepared_statement_name_func",
	"asyncpg":    "command_timeout max_cached_statement_lifetime max_cacheable_statement_size server_settings",
	"Django":     "conn_health_checks conn_max_age disable_server_side_cursors ssl_require",
	"Laravel":    "charset driver prefix",
	"Doctrine":   "serverVersion",
	"Ecto":       "pool_count pool_size prepare queue_interval queue_target socket_options",
	"node-postgres and others": "connectionTimeoutMillis idleTimeoutMillis keepAlive keepAliveInitialDelayMillis max query_timeout ssl " +
		"uselibpqcompat",
	"pgxpool": "pool_health_check_period pool_max_conn_idle_time pool_max_conn_lifetime pool_max_conn_lifetime_jitter pool_max_conns " +
		"pool_min_conns pool_min_idle_conns pool_ping_timeout",
	"lib/pq":   "binary_parameters disable_prepared_binary_result",
	"Supabase": "supa workaround",
	"Npgsql":   "Database Host Password Pooling Port Username",
	"JDBC": "ApplicationName adaptiveFetch allowEncodingChanges assumeMinServerVersion autosave binaryTransfer binaryTransferDisable " +
		"binaryTransferEnable cancelSignalTimeout channelBinding cleanupSavepoints connectTimeout currentSchema databaseMetadataCacheFields " +
		"databaseMetadataCacheFieldsMiB defaultRowFetchSize disableColumnSanitiser escapeSyntaxCallMode gssEncMode hostRecheckSeconds " +
		"loadBalanceHosts localSocketAddress logServerErrorDetail logUnclosedConnections loggerFile loggerLevel loginTimeout " +
		"maxResultBuffer preferQueryMode prepareThreshold preparedStatementCacheQueries preparedStatementCacheSizeMiB protocolVersion " +
		"quoteReturningIdentifiers reWriteBatchedInserts readOnly readOnlyMode receiveBufferSize sendBufferSize socketFactory " +
		"socketFactoryArg socketTimeout sslResponseTimeout sslfactory sslfactoryarg sslhostnameverifier sslpasswordcallback stringtype " +
		"targetServerType tcpKeepAlive tcpNoDelay unknownLength",
}

// libpqNames says what to write for libpq in place of some foreign parameters: other names, or a parameter with its
// value.
var libpqNames = map[string]string{
	"ApplicationName": "application_name",
	"connectTimeout":  "connect_timeout",
	"currentSchema":   "search_path",
	"Database":        "dbname",
	"Host":            "host",
	"Password":        "password",
	"Port":            "port",
	"ssl":             "sslmode=require",
	"sslaccept":       "sslmode=require or sslmode=verify-full",
	"sslidentity":     "sslcert and sslkey",
	"username":        "user",
	"Username":        "user",
}

var programOf = sync.OnceValue(func() map[string]string {
	programs := map[string]string{}
	for program, names := range foreign {
		for name := range strings.FieldsSeq(names) {
			programs[name] = program
		}
	}
	return programs
})

// checkForeign returns an error if parameters belong to another program. PostgreSQL would refuse them too, but its
// error would not say what to write instead.
func checkForeign(params map[string]string) error {
	var found []string
	for _, name := range slices.Sorted(maps.Keys(params)) {
		program, known := programOf()[name]
		if !known {
			continue
		}
		if other := libpqNames[name]; other != "" {
			program += ", write " + other
		}
		found = append(found, fmt.Sprintf("%s (%s)", name, program))
	}
	if found == nil {
		return nil
	}
	return Error("the database URL has parameters that belong to other programs: " + strings.Join(found, ", ") +
		"; remove them from the URL for rowcast")
}
