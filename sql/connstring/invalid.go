package connstring

import (
	"errors"
	"os"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// ErrInvalid reports that the connection string and libpq's variables do not describe a connection, and that Parse does
// not know which of them is invalid.
const ErrInvalid = Error("the database URL, a variable of libpq such as PGSERVICE, or a file that they name is invalid: " + asURL)

const errURL = Error("the database URL cannot be parsed: " + asURL + ", and percent-encode special characters in the user and the password")

const errPairs = Error("the database URL cannot be parsed: " + asURL + ", or as keywords and values such as host=… dbname=…, " +
	"and put a value with spaces between single quotes")

// A fault is a reason why pgx cannot parse a connection string or a variable.
type fault struct {
	begin    string // the beginning of pgx's reason
	keyword  string
	variable string // the variable of libpq for the keyword
	advice   string
}

const (
	portAdvice     = "write a number from 1 to 65535"
	protocolAdvice = "write 3.0, 3.2 or latest, and no minimum above the maximum"
	rootAdvice     = "name a file with certificates in PEM format that the current user may read"
	certAdvice     = "name a file with the certificate of sslkey in PEM format that the current user may read"
	keyAdvice      = "name a file with a private key in PEM format that the current user may read"
	passAdvice     = "write the passphrase that decrypts the file of sslkey"
)

var faults = []fault{
	{"failed to configure TLS (sslmode is invalid)", "sslmode", "PGSSLMODE", "write disable, allow, prefer, require, verify-ca or verify-full"},
	{"failed to configure TLS (unable to read CA", "sslrootcert", "PGSSLROOTCERT", rootAdvice},
	{"failed to configure TLS (unable to add CA", "sslrootcert", "PGSSLROOTCERT", rootAdvice},
	{`failed to configure TLS (both "sslcert"`, "sslcert", "PGSSLCERT", "give both sslcert and sslkey, or leave out both"},
	{"failed to configure TLS (unable to read sslkey", "sslkey", "PGSSLKEY", keyAdvice},
	{"failed to configure TLS (failed to decode sslkey", "sslkey", "PGSSLKEY", keyAdvice},
	{"failed to configure TLS (unable to find sslpassword", "sslpassword", "PGSSLPASSWORD", passAdvice},
	{"failed to configure TLS (unable to decrypt", "sslpassword", "PGSSLPASSWORD", passAdvice},
	{"failed to configure TLS (unable to read cert", "sslcert", "PGSSLCERT", certAdvice},
	{"failed to configure TLS (unable to load cert", "sslcert", "PGSSLCERT", certAdvice},
	{"invalid port", "port", "PGPORT", portAdvice},
	{"could not match", "port", "PGPORT", "write one port, or a port for each host"},
	{"invalid connect_timeout", "connect_timeout", "PGCONNECT_TIMEOUT", "write a whole number of seconds"},
	{"invalid sslcertmode", "sslcertmode", "PGSSLCERTMODE", "write disable, allow or require"},
	{"unknown target_session_attrs", "target_session_attrs", "PGTARGETSESSIONATTRS", "write any, read-write, read-only, primary, standby or prefer-standby"},
	{"unknown channel_binding", "channel_binding", "PGCHANNELBINDING", "write disable, prefer or require"},
	{"invalid require_auth", "require_auth", "PGREQUIREAUTH", "write methods of libpq, such as scram-sha-256"},
	{"invalid min_protocol_version", "min_protocol_version", "PGMINPROTOCOLVERSION", protocolAdvice},
	{"invalid max_protocol_version", "max_protocol_version", "PGMAXPROTOCOLVERSION", protocolAdvice},
	{"min_protocol_version cannot", "min_protocol_version", "PGMINPROTOCOLVERSION", protocolAdvice},
	{"failed to read service", "service", "PGSERVICE", "write the name of a section of the service file, which is ~/.pg_service.conf unless PGSERVICEFILE names another"},
}

// invalid returns an error that says what is wrong if pgx cannot parse a connection string and the variables of libpq.
// It does not return the error of pgx, which quotes the connection string and may quote a value in its reason.
func invalid(s string, err error) error {
	failed, ok := errors.AsType[*pgconn.ParseConfigError](err)
	if !ok {
		return ErrInvalid
	}
	// In the error of pgx, the reason follows the connection string and this separator. The password of a malformed
	// connection string may contain the separator too. So the reason may contain a part of the password, and is only
	// compared.
	_, reason, _ := strings.Cut(failed.Error(), "`: ")
	switch {
	case strings.HasPrefix(reason, "failed to parse as URL"):
		return errURL
	case strings.HasPrefix(reason, "failed to parse as keyword/value"):
		return errPairs
	}
	for _, f := range faults {
		if strings.HasPrefix(reason, f.begin) {
			return Error(f.source(s) + " is invalid: " + f.advice)
		}
	}
	return ErrInvalid
}

// source returns the keyword, the variable of libpq, or both if the value may come from either.
func (f fault) source(s string) string {
	switch {
	case os.Getenv(f.variable) == "":
		return f.keyword
	case !mentions(s, f.keyword):
		return f.variable
	}
	return f.keyword + " or " + f.variable
}

// mentions reports whether a connection string may contain a value for a keyword. If the string names a service, the
// service may have the value.
func mentions(s, keyword string) bool {
	given := regexp.MustCompile(`(^|[\s?&])(service|` + keyword + `)\s*=`)
	return given.MatchString(s) || keyword == "port" && isURL(s) && strings.Contains(hostsOf(s), ":")
}

// hostsOf returns the hosts and ports of a URL.
func hostsOf(s string) string {
	hosts := afterUser(s)
	if end := strings.IndexAny(hosts, "/?"); end >= 0 {
		hosts = hosts[:end]
	}
	return hosts
}

// afterUser returns what follows the user and the password in a URL. As in libpq, a password may contain a "?" or a
// "#".
func afterUser(s string) string {
	_, rest, _ := strings.Cut(s, "://")
	_, rest = cutCredentials(rest)
	return rest
}

// errEncoding reports that a URL has an "@" at an unexpected place. The text before this "@" is probably a part of the
// password. Without this error, the text could be taken for the name of a host or a database, and printed.
const errEncoding = Error(`the database URL has an "@" at an unexpected place, so its user or password is probably not percent-encoded: ` +
	"write %40 for @, %2F for /, %3F for ? and %23 for #")

// strayAt matches a query that is probably the rest of a password with a "?". In such a query, the name of a parameter
// contains an "@", or the value of a parameter contains an "@" and later a "/", but no "/" before the "@". The path of
// a file can contain an "@" too, but it has a "/" before the "@".
var strayAt = regexp.MustCompile(`(^|&)([^=&]*@|[^=&]*=[^/&]*@[^&]*/)`)

// checkEncoding returns an error if special characters in the user or password of a URL are probably not
// percent-encoded.
func checkEncoding(s string) error {
	path, query, _ := strings.Cut(afterUser(s), "?")
	if isURL(s) && (strings.Contains(path, "@") || strayAt.MatchString(query)) {
		return errEncoding
	}
	return nil
}
