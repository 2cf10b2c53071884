package connstring_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/connstring"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// keywords has the keywords of libpq in PostgreSQL 18 (PQconndefaults), and servicefile, which pgx accepts too. Each
// has a value that must be accepted or, after "!", a value that must be refused. A keyword with an empty value is only
// looked up in the README.
var keywords = map[string]string{
	"application_name":          "app",
	"channel_binding":           "disable",
	"client_encoding":           "LATIN1",
	"connect_timeout":           "10",
	"dbname":                    "app",
	"fallback_application_name": "app",
	"gssdelegation":             "0",
	"gssencmode":                "prefer",
	"gsslib":                    "gssapi",
	"host":                      "127.0.0.1",
	"hostaddr":                  "127.0.0.1",
	"keepalives":                "1",
	"keepalives_count":          "3",
	"keepalives_idle":           "30",
	"keepalives_interval":       "10",
	"krbsrvname":                "postgres",
	"load_balance_hosts":        "random",
	"max_protocol_version":      "3.2",
	"min_protocol_version":      "3.0",
	"oauth_client_id":           "!id",
	"oauth_client_secret":       "!secret",
	"oauth_issuer":              "!https://example.com",
	"oauth_scope":               "!scope",
	"options":                   "-csearch_path=app",
	"passfile":                  "/nowhere",
	"password":                  "secret",
	"port":                      "5432",
	"replication":               "!database",
	"require_auth":              "scram-sha-256",
	"requirepeer":               "postgres",
	"scram_client_key":          "!c2VjcmV0",
	"scram_server_key":          "!c2VjcmV0",
	"service":                   "",
	"servicefile":               "/nowhere",
	"ssl_max_protocol_version":  "TLSv1.3",
	"ssl_min_protocol_version":  "TLSv1.2",
	"sslcert":                   "",
	"sslcertmode":               "allow",
	"sslcompression":            "0",
	"sslcrl":                    "!/nowhere",
	"sslcrldir":                 "!/nowhere",
	"sslkey":                    "",
	"sslkeylogfile":             "/nowhere",
	"sslmode":                   "require",
	"sslnegotiation":            "direct",
	"sslpassword":               "secret",
	"sslrootcert":               "system",
	"sslsni":                    "0",
	"target_session_attrs":      "read-write",
	"tcp_user_timeout":          "10000",
	"user":                      "me",
}

// Each keyword of libpq is accepted, or refused with an error that names it. Of the keywords, only application_name and
// options are sent to the server as parameters, because it would refuse most of the others. The README documents each
// keyword.
func TestEachKeywordOfLibpq(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../../cmd/rowcast/README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, documented, _ := strings.Cut(string(readme), "\n### Parameters of the database URL\n")
	documented, _, _ = strings.Cut(documented, "\n## ")
	for keyword, value := range keywords {
		if !strings.Contains(documented, "`"+keyword+"`") {
			t.Errorf("the README does not describe %s", keyword)
		}
		value, refused := strings.CutPrefix(value, "!")
		if value == "" {
			continue
		}
		for _, s := range []string{keyword + "=" + value, "postgresql://?" + keyword + "=" + url.QueryEscape(value)} {
			config, err := connstring.Parse(s)
			if refused {
				if problem, ok := errors.AsType[connstring.Error](err); !ok || !strings.Contains(problem.Error(), keyword) {
					t.Errorf("%s: got error %v, want one that names the keyword", s, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s: got error %v, want none", s, err)
				continue
			}
			for name := range config.RuntimeParams {
				if name != "application_name" && name != "options" {
					t.Errorf("%s: the parameter %s is sent to the server, want only application_name and options", s, name)
				}
			}
		}
	}
}

// A parameter of PostgreSQL is sent to the server. An empty value of libpq's keywords means the default.
func TestOtherParameters(t *testing.T) {
	t.Parallel()
	config, err := connstring.Parse("host=h statement_timeout=5s rowcast.ring=off hostaddr='' keepalives='' replication='' gssencmode=''")
	if err != nil {
		t.Fatal(err)
	}
	if want := map[string]string{"statement_timeout": "5s", "rowcast.ring": "off"}; !maps.Equal(config.RuntimeParams, want) {
		t.Errorf("got the parameters %v, want %v", config.RuntimeParams, want)
	}
}

func TestEnvironment(t *testing.T) {
	for variable, wrong := range map[string]string{
		"PGHOSTADDR": "name", "PGSSLCRL": "/nowhere", "PGSSLCRLDIR": "/nowhere", "PGGSSENCMODE": "require",
		"PGSSLMINPROTOCOLVERSION": "SSLv3", "PGSSLMAXPROTOCOLVERSION": "SSLv3",
	} {
		t.Run(variable, func(t *testing.T) {
			t.Setenv(variable, wrong)
			if _, err := connstring.Parse("host=h"); err == nil {
				t.Errorf("%s=%s: got no error, want one", variable, wrong)
			}
		})
	}
	t.Setenv("PGHOSTADDR", "192.0.2.1")
	config, err := connstring.Parse("")
	if err != nil || config.Host != "192.0.2.1" {
		t.Errorf("PGHOSTADDR=192.0.2.1: got %v and error %v, want a configuration for this address", config, err)
	}
	config, err = connstring.Parse("postgres://u:a?b@db.example/app")
	if err != nil || config.Host != "192.0.2.1" || config.Database != "app" || config.Password != "a?b" {
		t.Errorf("PGHOSTADDR=192.0.2.1 and a password with a question mark: got %v and error %v, want this host, the database app and the password a?b", config, err)
	}
	config, err = connstring.Parse("hostaddr=192.0.2.2")
	if err != nil || config.Host != "192.0.2.2" {
		t.Errorf("hostaddr=192.0.2.2 with PGHOSTADDR=192.0.2.1: got %v and error %v, want a configuration for hostaddr", config, err)
	}
}

// servicefile names the service file. The system-wide service file of libpq is not read.
func TestServiceFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "pg_service.conf")
	if err := os.WriteFile(file, []byte("[app]\nhost=db.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	t.Setenv("PGSYSCONFDIR", dir)
	config, err := connstring.Parse("service=app servicefile=" + file)
	if err != nil || config.Host != "db.example" {
		t.Errorf("with servicefile: got %v and error %v, want the host db.example", config, err)
	}
	if _, err := connstring.Parse("service=app"); err == nil {
		t.Error("with a file in PGSYSCONFDIR only: got no error, want one")
	}
}

// hostaddr replaces the addresses of the hosts, and their names are still verified.
func TestHostaddr(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"host=a hostaddr=192.0.2.1 sslmode=verify-full":                        "192.0.2.1:5432 tls a",
		"postgres://a:1/x?hostaddr=192.0.2.1&sslmode=verify-full":              "192.0.2.1:1 tls a",
		"host=a hostaddr=192.0.2.1":                                            "192.0.2.1:5432 tls a, 192.0.2.1:5432",
		"host=a,a,b port=1,2,3 hostaddr='192.0.2.1, 192.0.2.2,'":               "192.0.2.1:1 tls a, 192.0.2.1:1, 192.0.2.2:2 tls a, 192.0.2.2:2, b:3 tls b, b:3",
		"hostaddr=192.0.2.1,::1 port=1,2 sslmode=disable":                      "192.0.2.1:1, ::1:2",
		"hostaddr=192.0.2.1 sslmode=require":                                   "192.0.2.1:5432 tls ",
		"postgres:///x?hostaddr=192.0.2.1&sslmode=disable":                     "192.0.2.1:5432",
		"host=/run,a,/run hostaddr=,192.0.2.1,192.0.2.2":                       "/run:5432, 192.0.2.1:5432 tls a, 192.0.2.1:5432, 192.0.2.2:5432 tls , 192.0.2.2:5432",
		"host=/run,/run hostaddr=,192.0.2.2 sslmode=disable":                   "/run:5432, 192.0.2.2:5432",
		"postgres://u:a?b@a,b/x?hostaddr=192.0.2.1,192.0.2.2&sslmode=disable&": "192.0.2.1:5432, 192.0.2.2:5432",
		"host=/nowhere hostaddr=192.0.2.1 sslmode=disable":                     "192.0.2.1:5432",
		"host='' hostaddr=192.0.2.1,192.0.2.2 sslmode=disable":                 "192.0.2.1:5432, 192.0.2.2:5432",
		"postgres:///x?hostaddr=192.0.2.1,192.0.2.2&sslmode=disable":           "192.0.2.1:5432, 192.0.2.2:5432",
		"host=a hostaddr=192.0.2.1,192.0.2.2":                                  "the number of hosts is 1, and the number of addresses in hostaddr is 2: write an address for each host",
		"host=/nowhere hostaddr=192.0.2.1,192.0.2.2":                           "the number of hosts is 1, and the number of addresses in hostaddr is 2: write an address for each host",
		"host=/nowhere,b hostaddr=192.0.2.1":                                   "the number of hosts is 2, and the number of addresses in hostaddr is 1: write an address for each host",
		"host=a hostaddr=a.example":                                            "hostaddr is invalid: write an IP address such as 192.0.2.1, and the name as host=…",
		"host=a port=x hostaddr=192.0.2.1":                                     "port is invalid: write a number from 1 to 65535",
	} {
		config, err := connstring.Parse(s)
		got := fmt.Sprint(err)
		if err == nil {
			got = attempts(config)
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
	}
}

func attempts(config *pgx.ConnConfig) string {
	var all []string
	attempt := func(host string, port uint16, server *string) {
		one := fmt.Sprintf("%s:%d", host, port)
		if server != nil {
			one += " tls " + *server
		}
		all = append(all, one)
	}
	var name *string
	if config.TLSConfig != nil {
		name = &config.TLSConfig.ServerName
	}
	attempt(config.Host, config.Port, name)
	for _, f := range config.Fallbacks {
		name = nil
		if f.TLSConfig != nil {
			name = &f.TLSConfig.ServerName
		}
		attempt(f.Host, f.Port, name)
	}
	return strings.Join(all, ", ")
}

// Parse appends parameters to the connection string, so the last value must end before them. Whatever this value looks
// like, the user, the password and hostaddr keep their values.
func TestLastValue(t *testing.T) {
	t.Parallel()
	for s, password := range map[string]string{
		"user=u hostaddr=192.0.2.1 password=":           "",
		"user=u hostaddr=192.0.2.1 password = ":         "",
		"user=u hostaddr=192.0.2.1 password=ab==":       "ab==",
		`user=u hostaddr=192.0.2.1 password=ab\`:        "ab",
		`user=u hostaddr=192.0.2.1 password=ab\\`:       `ab\`,
		`user=u hostaddr=192.0.2.1 password='a b=\' '`:  "a b=' ",
		"postgres://u:a%20?b=c@/?hostaddr=192.0.2.1":    "a ?b=c",
		"postgres://u@/?hostaddr=192.0.2.1&password=x&": "x",
		"postgres://u:p@192.0.2.1?":                     "p",
		"postgres://u:p@192.0.2.1":                      "p",
	} {
		config, err := connstring.Parse(s)
		if err != nil {
			t.Errorf("%s: got error %v, want none", s, err)
			continue
		}
		if config.Password != password || config.User != "u" || config.Host != "192.0.2.1" {
			t.Errorf("%s: got the user %q, the password %q and the host %q, want u, %q and 192.0.2.1", s, config.User, config.Password, config.Host, password)
		}
	}
}

// A form or parameter of another program is refused with an error that says what to write or to remove. So are invalid
// values.
func TestOtherPrograms(t *testing.T) {
	t.Parallel()
	const asURL = "write it as postgresql://user:password@host:5432/name"
	const params, remove = "the database URL has parameters that belong to other programs: ", "; remove them from the URL for rowcast"
	for s, want := range map[string]string{
		"jdbc:postgresql://h/app?user=me&password=secret": `the database URL begins with jdbc: (JDBC): leave out "jdbc:", and write postgresql://user:password@host:5432/name`,
		"JDBC:postgresql:app":                             `the database URL begins with jdbc: (JDBC): leave out "jdbc:", and write postgresql://user:password@host:5432/name`,
		"postgresql+psycopg2://me:secret@h/app":           "the database URL begins with postgresql+psycopg2:// (SQLAlchemy): write postgresql:// instead",
		"postgres+asyncpg://me:secret@h/app":              "the database URL begins with postgres+asyncpg:// (SQLAlchemy): write postgresql:// instead",
		"postgresql+secret://me:secret@h/app":             "the database URL begins with postgresql+…:// (SQLAlchemy): write postgresql:// instead",
		"prisma://h/?api_key=secret":                      "the database URL begins with prisma:// (Prisma Accelerate): " + asURL + ", which Prisma calls the direct URL",
		"pgsql:host=h;password=secret":                    `the database URL begins with pgsql: (PDO): leave out "pgsql:", and replace each semicolon by a space`,
		"pgsql://me:secret@h/app":                         "the database URL begins with pgsql:// (PHP): " + asURL,
		"Host=h;Username=me;Password=secret":              "the database URL has the form of Npgsql (ADO.NET): " + asURL,
		"User Id=me; Password=secret; Server=h":           "the database URL has the form of Npgsql (ADO.NET): " + asURL,
		"Driver={PostgreSQL};Server=h;Pwd=secret":         "the database URL begins with driver= (ODBC): " + asURL,
		`"postgres://me:secret@h/app"`:                    `the database URL begins with " (a quote): leave out the quotes, which docker --env-file keeps`,
		"psql 'postgres://me:secret@h/app'":               `the database URL begins with psql (a command of a shell): leave out "psql", and the quotes around the URL`,
		"mysql://me:secret@h/app":                         "the database URL does not begin with postgresql:// or postgres://: " + asURL,
		"POSTGRES://me:secret@h/app":                      "the database URL does not begin with postgresql:// or postgres://: " + asURL,
		"secret://me@h/app":                               "the database URL does not begin with postgresql:// or postgres://: " + asURL,

		"postgres://me:secret@h/app?schema=public&connection_limit=5&pgbouncer=true&pool_timeout=0": params +
			"connection_limit (Prisma), pgbouncer (Prisma), pool_timeout (Prisma), schema (Prisma)" + remove,
		"host=h password=secret pool=5 reaping_frequency=10": params + "pool (Rails), reaping_frequency (Rails)" + remove,
		"postgres://h/app?sslaccept=strict&sslcert=/secret":  params + "sslaccept (Prisma, write sslmode=require or sslmode=verify-full)" + remove,
		"postgres://h/app?ssl=no-verify":                     params + "ssl (node-postgres and others, write sslmode=require)" + remove,
		"host=h username=me password=secret":                 params + "username (Rails, write user)" + remove,
		"Host=h Password=secret":                             params + "Host (Npgsql, write host), Password (Npgsql, write password)" + remove,
		"postgres://h/app?sslmode=no-verify":                 "sslmode is invalid: write disable, allow, prefer, require, verify-ca or verify-full",
		"postgres://h/app?gssencmode=require":                "gssencmode=require is not supported: write gssencmode=disable, and encrypt with TLS (sslmode=verify-full)",
		"postgres://h/app?keepalives_idle=soon":              "keepalives_idle is invalid: write a whole number",
		"postgres://h/app?ssl_min_protocol_version=3":        "ssl_min_protocol_version is invalid: write TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3",
		"postgres://h/app?ssl_max_protocol_version=TLSv1.1":  "ssl_max_protocol_version is lower than ssl_min_protocol_version, which is TLSv1.2 by default",
		"host=h sslcrl=/nowhere":                             "a file of sslcrl or sslcrldir cannot be read",
		"127.0.0.1:15413/app":                                "the database URL does not begin with postgresql:// or postgres://: " + asURL,
		"me:secret@h/app":                                    "the database URL does not begin with postgresql:// or postgres://: " + asURL,
		"host=h password=secret sslmode=secret":              "sslmode is invalid: write disable, allow, prefer, require, verify-ca or verify-full",
	} {
		_, err := connstring.Parse(s)
		if problem, ok := errors.AsType[connstring.Error](err); !ok || problem.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", s, err, want)
		}
	}
}

// The error names the parameter of TLS whose file is missing, cannot be read or has the wrong content.
func TestInvalidFilesOfTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"empty":     "",
		"key":       "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
		"encrypted": "-----BEGIN RSA PRIVATE KEY-----\nDEK-Info: AES-128-CBC,x\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const readable = " in PEM format that the current user may read"
	for s, want := range map[string]string{
		"sslrootcert=DIR/missing":                              "sslrootcert is invalid: name a file with certificates" + readable,
		"sslrootcert=DIR/empty":                                "sslrootcert is invalid: name a file with certificates" + readable,
		"sslkey=DIR/key":                                       "sslcert is invalid: give both sslcert and sslkey, or leave out both",
		"sslkey=DIR/missing sslcert=DIR/empty":                 "sslkey is invalid: name a file with a private key" + readable,
		"sslkey=DIR/empty sslcert=DIR/empty":                   "sslkey is invalid: name a file with a private key" + readable,
		"sslkey=DIR/key sslcert=DIR/missing":                   "sslcert is invalid: name a file with the certificate of sslkey" + readable,
		"sslkey=DIR/key sslcert=DIR/empty":                     "sslcert is invalid: name a file with the certificate of sslkey" + readable,
		"sslkey=DIR/encrypted sslcert=DIR/empty":               "sslpassword is invalid: write the passphrase that decrypts the file of sslkey",
		"sslkey=DIR/encrypted sslcert=DIR/empty sslpassword=x": "sslpassword is invalid: write the passphrase that decrypts the file of sslkey",
	} {
		_, err := connstring.Parse("host=h sslmode=verify-full " + strings.ReplaceAll(s, "DIR", dir))
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", s, err, want)
		}
	}
}

// The error contains no password. If possible, it says which part of a connection string or which variable is invalid.
func TestInvalidParts(t *testing.T) {
	const port, modes = " is invalid: write a number from 1 to 65535", " is invalid: write disable, allow, prefer, require, verify-ca or verify-full"
	const asURL = "the database URL cannot be parsed: write it as postgresql://user:password@host:5432/name"
	for _, tt := range []struct{ variable, value, s, want string }{
		{"", "", "postgres://me:secret%zz@h/app", asURL + ", and percent-encode special characters in the user and the password"},
		{"", "", "postgres://me:se cret@h/app", asURL + ", and percent-encode special characters in the user and the password"},
		{"", "", "host=h password='secret", asURL + ", or as keywords and values such as host=… dbname=…, and put a value with spaces between single quotes"},
		{"", "", "host=h password=secret port=secret", "port" + port},
		{"", "", "postgres://me:secret@h:x/app", "port" + port},
		{"", "", "postgres://me:secret@a,b:1,c:2,d:3/app?port=1,2", "port is invalid: write one port, or a port for each host"},
		{"PGPORT", "secret", "", "PGPORT" + port},
		{"PGPORT", "secret", "postgres://me:se:cret@[::1]:1/app", ""},
		{"PGPORT", "secret", "postgres://me:secret@h/app?sslmode=disable", "PGPORT" + port},
		{"PGPORT", "1", "postgres://me:secret@h:x/app", "port or PGPORT" + port},
		{"PGPORT", "secret", "host=h service = x", "service is invalid: write the name of a section of the service file, which is ~/.pg_service.conf unless PGSERVICEFILE names another"},
		{"PGSSLMODE", "secret", "host=h", "PGSSLMODE" + modes},
		{"PGSSLMODE", "require", "host=h sslmode=secret", "sslmode or PGSSLMODE" + modes},
		{"PGCONNECT_TIMEOUT", "secret", "host=h", "PGCONNECT_TIMEOUT is invalid: write a whole number of seconds"},
		{"PGSSLCERTMODE", "secret", "host=h", "PGSSLCERTMODE is invalid: write disable, allow or require"},
		{"PGTARGETSESSIONATTRS", "secret", "host=h", "PGTARGETSESSIONATTRS is invalid: write any, read-write, read-only, primary, standby or prefer-standby"},
		{"PGCHANNELBINDING", "secret", "host=h", "PGCHANNELBINDING is invalid: write disable, prefer or require"},
		{"PGREQUIREAUTH", "secret", "host=h", "PGREQUIREAUTH is invalid: write methods of libpq, such as scram-sha-256"},
		{"PGMINPROTOCOLVERSION", "secret", "host=h", "PGMINPROTOCOLVERSION is invalid: write 3.0, 3.2 or latest, and no minimum above the maximum"},
		{"PGMAXPROTOCOLVERSION", "secret", "host=h", "PGMAXPROTOCOLVERSION is invalid: write 3.0, 3.2 or latest, and no minimum above the maximum"},
		{"", "", "host=h max_protocol_version=3.0 min_protocol_version=3.2", "min_protocol_version is invalid: write 3.0, 3.2 or latest, and no minimum above the maximum"},
		{"PGSERVICE", "secret", "", "PGSERVICE is invalid: write the name of a section of the service file, which is ~/.pg_service.conf unless PGSERVICEFILE names another"},
		{"PGSSLROOTCERT", "/nowhere/secret", "host=h sslmode=verify-full", "PGSSLROOTCERT is invalid: name a file with certificates in PEM format that the current user may read"},
	} {
		t.Run(tt.variable+tt.s, func(t *testing.T) {
			if tt.variable != "" {
				t.Setenv(tt.variable, tt.value)
			}
			got := ""
			if _, err := connstring.Parse(tt.s); err != nil {
				got = err.Error()
			}
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// A URL is refused if a part of its password would be taken for a host or a database, because hosts and databases are
// printed. Otherwise Parse uses the password as it is, even with special characters, as libpq does. Percent-encoded
// characters are always a part of the password.
func TestSpecialCharactersOfAPassword(t *testing.T) {
	t.Parallel()
	for _, password := range []string{"p@ss#w", "p@ss", "1/2", "p@s/w", "p/w@s", "p@s?w", "p@s?w=x", "1/2?w=x", "12/3?a=b&c=d", "@", "a@b@c"} {
		for _, user := range []string{"", "me", "me@corp"} {
			s := "postgresql://" + user + ":" + password + "@127.0.0.1:1/app?sslmode=disable"
			_, err := connstring.Parse(s)
			if problem, ok := errors.AsType[connstring.Error](err); !ok || !strings.Contains(problem.Error(), "percent-encode") {
				t.Errorf("%s: got %v, want an error that advises to percent-encode", s, err)
			}
		}
		s := "postgresql://" + url.QueryEscape("me@corp") + ":" + url.QueryEscape(password) + "@127.0.0.1:1/app"
		if config, err := connstring.Parse(s); err != nil || config.Password != password || config.User != "me@corp" || config.Host != "127.0.0.1" {
			t.Errorf("%s: got %v and error %v, want the user me@corp, the password %s and the host 127.0.0.1", s, config, err, password)
		}
	}
	for s, want := range map[string]string{
		"postgres://me:12#3?4@h/app":                           "12#3?4",
		"postgres://h/app?user=me@project.iam&password=p@w":    "p@w",
		"postgres://me:x@h/app?passfile=/home/me@corp/.pgpass": "x",
	} {
		config, err := connstring.Parse(s)
		if err != nil || config.Password != want {
			t.Errorf("%s: got %v and error %v, want the password %s", s, config, err, want)
		}
	}
}

// A value, such as a password, may resemble the connection string or the parameters of another program. Parse also
// accepts ssl=true in a URL, as libpq does.
func TestPasswordsAreNotForms(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"host=h password=a;b user=u", "password=jdbc:x host=h", "password=a;Host=h host=h", "postgres://u:schema=a&pool=b@h/app",
		"host=h password=mysql://x", "application_name='pool=5'", "postgres://h/app?ssl=true",
	} {
		if _, err := connstring.Parse(s); err != nil {
			t.Errorf("%s: got error %v, want none", s, err)
		}
	}
}

// A connection string without its passwords describes the same connection.
func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{
		"":                        "",
		"host=h port=5433 user=u": "host=h port=5433 user=u",
		`host='/a b/it\'s' user=u dbname=d password='se cret'`:              `host='/a b/it\'s' user=u dbname=d`,
		`host=h user='a\\b' dbname=d password=x sslmode=disable`:            `host=h user='a\\b' dbname=d sslmode=disable`,
		"user = 'password=x' password = secret sslpassword=secret host=h\\": "user = 'password=x' host=h",
		"host=h\vpassword=secret":                                           "host=h",
		`password=se\ cret user=u`:                                          "user=u",
		"postgres://h:5432/app?sslmode=disable":                             "postgres://h:5432/app?sslmode=disable",
		"postgres://u:secret@db.example:5433/app?sslmode=disable":           "postgres://u@db.example:5433/app?sslmode=disable",
		"postgresql://u@h/app?password=secret&sslmode=disable&":             "postgresql://u@h/app?sslmode=disable",
		"postgres://h/app?p%61ssword=secret&sslpassword=secret":             "postgres://h/app",
		"postgres://u:secret@h1:5433,h2:5434/app?application_name=a%20b":    "postgres://u@h1:5433,h2:5434/app?application_name=a%20b",
		"postgres://u:secret@h1:5433,h2/app":                                "postgres://u@h1:5433,h2/app",
		"postgres://u:12?34@h:5433/app":                                     "postgres://u@h:5433/app",
		"postgres://:secret@u@h/app?user=u":                                 "postgres://@u@h/app?user=u",
	} {
		if got := connstring.WithoutPassword(s); got != want {
			t.Errorf("%s: got %s, want %s", s, got, want)
		}
		compareWithoutPassword(t, s)
	}
	pieces := []string{"u", "h", ":", "@", "/", "?", "&", "=", "password", "password=", "sslpassword=", "user=", "secret", " ", "\v", "'", `\`, "%70"}
	random := rand.New(rand.NewPCG(1, 2))
	valid := 0
	for i := range 5_000 {
		s := []string{"", "postgres://"}[i%2]
		for range 2 + random.IntN(8) {
			s += pieces[random.IntN(len(pieces))]
		}
		if compareWithoutPassword(t, s) {
			valid++
		}
	}
	if valid < 100 {
		t.Errorf("%d random connection strings are valid and have a password, want at least 100", valid)
	}
}

// compareWithoutPassword compares what pgx reads in a connection string with what it reads in the string without the
// password. It reports whether the string is valid and has a password.
func compareWithoutPassword(t *testing.T, s string) bool {
	t.Helper()
	want, err := pgx.ParseConfig(s)
	if err != nil {
		return false
	}
	short := connstring.WithoutPassword(s)
	got, err := pgx.ParseConfig(short)
	if err != nil || got.Password != "" || got.Host != want.Host || got.Port != want.Port || got.User != want.User || got.Database != want.Database ||
		!maps.Equal(got.RuntimeParams, want.RuntimeParams) {
		t.Errorf("%q without its password is %q, which is another connection or has a password (%v)", s, short, err)
	}
	return want.Password != ""
}

// No foreign parameter is a parameter that PostgreSQL lets a session set, or a keyword of libpq.
func TestForeignParametersAreUnknownToPostgreSQL(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Empty(t))
	rows, err := conn.Query(t.Context(), "SELECT lower(name) FROM pg_settings WHERE context IN ('user', 'superuser', 'backend', 'superuser-backend')")
	if err != nil {
		t.Fatal(err)
	}
	known, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(known) < 100 {
		t.Fatalf("got %d parameters and error %v, want at least 100", len(known), err)
	}
	for name := range connstring.ProgramOf() {
		if slices.Contains(known, strings.ToLower(name)) {
			t.Errorf("the foreign parameter %s is also a parameter that PostgreSQL lets a session set", name)
		}
		if _, ok := keywords[name]; ok {
			t.Errorf("the foreign parameter %s is also a keyword of libpq", name)
		}
	}
}

// fallback_application_name is used if there is no application_name.
func TestFallbackApplicationName(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	for params, want := range map[string]string{"&fallback_application_name=second": "second", "&fallback_application_name=second&application_name=first": "first"} {
		var got string
		if err := connect(t, dsn+params+"&client_encoding=auto&keepalives=1&gssencmode=disable").QueryRow(t.Context(), "SHOW application_name").Scan(&got); err != nil || got != want {
			t.Errorf("%s: got %q and error %v, want %q", params, got, err, want)
		}
	}
}

func connect(t *testing.T, s string) *pgx.Conn {
	t.Helper()
	conn, err := tryConnect(t, s)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func tryConnect(t *testing.T, s string) (*pgx.Conn, error) {
	t.Helper()
	config, err := connstring.Parse(s)
	if err != nil {
		return nil, err
	}
	conn, err := pgx.ConnectConfig(dbtest.Context(t), config)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(dbtest.Context(t)) })
	}
	return conn, err
}
