// Package connstring reads connection strings as libpq does. It uses pgx, and adds the parameters of libpq that pgx
// does not know. pgx would send them to the server, which refuses most of them. For the URLs and parameters of other
// programs, the package returns errors that say what to change.
package connstring

import (
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// An Error reports what is wrong with a connection string, a variable of libpq or a file, and usually what to write
// instead. It contains no value of the connection string, because any part of a malformed string may be the password.
type Error string

func (e Error) Error() string { return string(e) }

// Parse returns the configuration that a connection string describes. The string is a URL such as
// postgresql://user:password@host:5432/name, or has keywords and values such as host=… dbname=…. Environment variables
// and files of libpq, such as PGHOST and ~/.pgpass, supply what the string leaves out. The returned errors are of type
// [Error], and contain no password.
func Parse(s string) (*pgx.ConnConfig, error) {
	if err := checkFormat(s); err != nil {
		return nil, err
	}
	if err := checkEncoding(s); err != nil {
		return nil, err
	}
	// hosts has one address for each host. It also has the parameters that pgx does not know, even if s has an invalid
	// port or sslmode.
	hosts, err := parseHosts(s)
	if err != nil {
		return nil, invalid(s, err)
	}
	if err := checkForeign(hosts.RuntimeParams); err != nil {
		return nil, err
	}
	settings := settingsOf(hosts.RuntimeParams)
	if err := settings.checkRefused(); err != nil {
		return nil, err
	}
	config, err := withAddresses(s, hosts, settings["hostaddr"])
	if err != nil {
		return nil, err
	}
	settings.setNames(config)
	if err := settings.setTLS(config); err != nil {
		return nil, err
	}
	return config, settings.setSockets(config)
}

// parseHosts parses a connection string with port=5432 and sslmode=disable in place of its own values. So the result
// has one address for each host, and an invalid port or sslmode is no error yet.
func parseHosts(s string) (*pgx.ConnConfig, error) {
	return pgx.ParseConfig(override(override(s, "port", "5432"), "sslmode", "disable"))
}

func parse(s string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(s)
	if err != nil {
		return nil, invalid(s, err)
	}
	return config, nil
}

// variables are the keywords of libpq that pgx does not know, each with its environment variable. The variable is "" if
// libpq has none, or if the keyword has no effect here.
var variables = map[string]string{
	"client_encoding":           "",
	"fallback_application_name": "",
	"gssdelegation":             "",
	"gssencmode":                "PGGSSENCMODE",
	"gsslib":                    "",
	"hostaddr":                  "PGHOSTADDR",
	"keepalives":                "",
	"keepalives_count":          "",
	"keepalives_idle":           "",
	"keepalives_interval":       "",
	"load_balance_hosts":        "",
	"oauth_client_id":           "",
	"oauth_client_secret":       "",
	"oauth_issuer":              "",
	"oauth_scope":               "",
	"replication":               "",
	"requirepeer":               "PGREQUIREPEER",
	"scram_client_key":          "",
	"scram_server_key":          "",
	"ssl_max_protocol_version":  "PGSSLMAXPROTOCOLVERSION",
	"ssl_min_protocol_version":  "PGSSLMINPROTOCOLVERSION",
	"sslcompression":            "",
	"sslcrl":                    "PGSSLCRL",
	"sslcrldir":                 "PGSSLCRLDIR",
	"sslkeylogfile":             "",
	"tcp_user_timeout":          "",
}

// settings are the values of the keywords in variables. As in libpq, an empty value means the default.
type settings map[string]string

func settingsOf(params map[string]string) settings {
	s := settings{}
	for keyword, variable := range variables {
		value, given := params[keyword]
		if !given && variable != "" {
			value = os.Getenv(variable)
		}
		if value != "" {
			s[keyword] = value
		}
	}
	return s
}

// checkRefused returns an error if a setting demands what rowcast cannot do. If such a setting were ignored, the
// connection could be less secure, or could fail later with a less clear error. checkRefused also returns an error if
// gssencmode or load_balance_hosts is invalid.
func (s settings) checkRefused() error {
	switch s["gssencmode"] {
	case "", "disable", "prefer":
	case "require":
		return Error("gssencmode=require is not supported: write gssencmode=disable, and encrypt with TLS (sslmode=verify-full)")
	default:
		return Error("gssencmode is invalid: write disable or prefer")
	}
	switch s["load_balance_hosts"] {
	case "", "disable", "random":
	default:
		return Error("load_balance_hosts is invalid: write disable or random")
	}
	switch s["replication"] {
	case "", "false", "off", "no", "0":
	default:
		return Error("replication is not supported, because rowcast needs an ordinary connection: remove it")
	}
	for _, keyword := range []string{"scram_client_key", "scram_server_key"} {
		if s[keyword] != "" {
			return Error(keyword + " is not supported: give the password, or use a client certificate")
		}
	}
	for _, keyword := range []string{"oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope"} {
		if s[keyword] != "" {
			return Error(keyword + " is not supported: give a password, or use a client certificate")
		}
	}
	return nil
}

// setNames removes the keywords in variables from the parameters that config sends to the server. It sets the
// application_name to fallback_application_name if config has no application_name.
func (s settings) setNames(config *pgx.ConnConfig) {
	for keyword := range variables {
		delete(config.RuntimeParams, keyword)
	}
	if name := s["fallback_application_name"]; name != "" && config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = name
	}
}

// override returns the connection string with another value for a keyword. It appends the keyword with this value,
// because only the last of several values has effect.
func override(s, keyword, value string) string {
	if !isURL(s) {
		return endPairs(s) + keyword + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
	}
	separator := "?"
	if _, query, found := strings.Cut(afterUser(s), "?"); found {
		separator = "&"
		if query == "" || strings.HasSuffix(query, "&") {
			separator = ""
		}
	}
	return s + separator + keyword + "=" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

// WithoutPassword returns a connection string without its passwords, so that it can be shown. The rest keeps its
// meaning. The connection string must be one that [Parse] accepts.
func WithoutPassword(s string) string {
	if !isURL(s) {
		return strings.Join(slices.DeleteFunc(pair.FindAllString(s, -1), func(p string) bool {
			keyword, _, _ := strings.Cut(p, "=")
			return isPassword(strings.TrimSpace(keyword))
		}), " ")
	}
	scheme, rest, _ := strings.Cut(s, "://")
	credentials, rest := cutCredentials(rest)
	user, _, _ := strings.Cut(strings.TrimSuffix(credentials, "@"), ":")
	if credentials != "" {
		user += "@"
	}
	rest, query, _ := strings.Cut(rest, "?")
	parameters := slices.DeleteFunc(strings.Split(query, "&"), func(p string) bool {
		name, _, _ := strings.Cut(p, "=")
		name, err := url.PathUnescape(strings.Trim(name, " "))
		return p == "" || err != nil || isPassword(name)
	})
	if len(parameters) > 0 {
		rest += "?" + strings.Join(parameters, "&")
	}
	return scheme + "://" + user + rest
}

func isPassword(keyword string) bool { return keyword == "password" || keyword == "sslpassword" }

func isURL(s string) bool {
	return strings.HasPrefix(s, "postgres://") || strings.HasPrefix(s, "postgresql://")
}

// cutCredentials splits the part of a URL after "://" into the user and the password, with the "@" after them, and the
// rest. The password may contain a "?".
func cutCredentials(s string) (credentials, rest string) {
	if i := strings.IndexAny(s, "@/"); i >= 0 && s[i] == '@' {
		return s[:i+1], s[i+1:]
	}
	return "", s
}

// pair matches a keyword and its value. The group is the value.
var pair = regexp.MustCompile(`(?s)[^\s\v=]+[\s\v]*=[\s\v]*('(?:[^'\\]|\\.)*'|(?:[^\s\v\\]|\\.)*)`)

// endPairs returns s, a string of keywords and values, with an end to which another pair can be appended. It writes an
// empty last value as two quotes. It removes a backslash at the end that escapes nothing, because the backslash would
// escape the space before the next pair.
func endPairs(s string) string {
	if backslashes := len(s) - len(strings.TrimRight(s, `\`)); backslashes%2 == 1 {
		s = s[:len(s)-1]
	}
	all := pair.FindAllStringSubmatch(s, -1)
	if len(all) > 0 && all[len(all)-1][1] == "" {
		s += "''"
	}
	return s + " "
}
