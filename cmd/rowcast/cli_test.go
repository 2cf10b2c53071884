package main_test

import (
	"slices"
	"strings"
	"testing"

	main "rowcast/cmd/rowcast"
	"rowcast/sql/dbtest"
)

func TestHelp(t *testing.T) {
	t.Parallel()
	code, help, stderr := run(t, nil)
	if code != 0 || stderr != "" {
		t.Errorf("rowcast without arguments: got exit code %d, stderr %q, want 0 and no error", code, stderr)
	}
	for _, command := range []string{"demo", "migrate", "serve", "tail", "client", "token", "watch", "unwatch", "doctor"} {
		if !strings.Contains(help, "\n  "+command+" ") {
			t.Errorf("the help does not name %s:\n%s", command, help)
		}
		code, text, stderr := run(t, nil, command, "--help")
		if code != 0 || stderr != "" || !strings.HasPrefix(text, "Usage: rowcast "+command+" ") {
			t.Errorf("%s --help: got exit code %d, stderr %q, %s, want 0, no error and the usage of the command", command, code, stderr, text)
		}
	}
	if code, again, _ := run(t, nil, "--help"); code != 0 || again != help {
		t.Errorf("--help: got exit code %d, %s, want 0 and the text that rowcast without arguments prints", code, again)
	}
}

func TestHelpNamesVariablesAndDefaults(t *testing.T) {
	t.Parallel()
	_, help, _ := run(t, nil, "serve", "--help")
	help = strings.Join(strings.Fields(help), " ")
	for _, want := range []string{
		"--listen=HOST:PORT Listen at this address (default 127.0.0.1:8080)", "($ROWCAST_LISTEN)",
		"($ROWCAST_DATABASE_URL, $DATABASE_URL)", "($ROWCAST_INSECURE_UID)",
		"(0, the default: as many as the limit of open files allows) ($ROWCAST_MAX_CONNECTIONS)",
		"(0, the default: no limit) ($ROWCAST_MAX_CONNECTIONS_PER_USER)",
		"(default 15s) ($ROWCAST_HEARTBEAT)", "(default 16MiB) ($ROWCAST_MAX_EVENT)",
	} {
		if !strings.Contains(help, want) {
			t.Errorf("the help does not contain %q:\n%s", want, help)
		}
	}
}

// A command fails if its text cannot be printed, for example because the disk is full.
func TestFailsIfTheOutputCannotBeWritten(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	for _, args := range [][]string{
		nil,
		{"serve", "--help"},
		{"--version"},
		{"client"},
		{"client", "--name"},
		{"token", "--sub=alice", "--jwt-secret=" + secret},
		{"migrate", "--print"},
		{"migrate", "--database-url", dsn},
		{"doctor", "--database-url", dsn},
		{"watch", "--list", "--database-url", dsn},
	} {
		var stderr strings.Builder
		code := main.Run(dbtest.Context(t), args, func(string) string { return "" }, fullDisk{}, &stderr)
		if want := "rowcast: no space left on device\n"; code != 1 || stderr.String() != want {
			t.Errorf("%v: got %d, %q, want 1, %q", args, code, &stderr, want)
		}
	}
}

// The default of --replays is the number of processors, but at least 2 and at most 4.
func TestDefaultOfReplays(t *testing.T) {
	t.Parallel()
	for processors, want := range map[string]string{"1": "2", "3": "3", "64": "4"} {
		cmd := command(t, dbtest.Home(t), "serve", "--help")
		cmd.Env = append(cmd.Env, "GOMAXPROCS="+processors)
		help, err := cmd.Output()
		if want := "(default " + want + ") ($ROWCAST_REPLAYS)"; err != nil || !strings.Contains(strings.Join(strings.Fields(string(help)), " "), want) {
			t.Errorf("with %s processors: got the error %v and this help, want no error and %q in the help:\n%s", processors, err, want, help)
		}
	}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	code, out, stderr := run(t, nil, "--version")
	if code != 0 || stderr != "" || !strings.HasPrefix(out, "rowcast ") || strings.Count(out, "\n") != 1 {
		t.Errorf("got %d, %q, %q, want 0, one line that begins with rowcast, and no error", code, out, stderr)
	}
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	tests := []struct {
		args []string
		env  environment
		want string
	}{
		{[]string{"serv"}, nil, `unexpected argument serv, did you mean "serve"?`},
		{[]string{"bogus"}, nil, "unexpected argument bogus" + commands},
		{[]string{"bogus", "--listen=:80"}, nil, "unexpected argument bogus" + commands},
		{[]string{"--listen=:80"}, nil, "unknown flag --listen" + commands},
		{[]string{"serve", "--lisen=:80"}, nil, `unknown flag --lisen, did you mean "--listen"?`},
		{[]string{"serve", "now"}, nil, `unexpected argument now`},
		{[]string{"serve", "--auth-url"}, nil, `--auth-url needs a value, as in --auth-url URL`},
		{[]string{"serve", "--retain", "--poll"}, nil, `--retain needs a value, as in --retain DURATION`},
		{[]string{"serve", "--trusted-proxy"}, nil, `--trusted-proxy needs a value, as in --trusted-proxy CIDR`},
		{[]string{"migrate", "--app-role"}, nil, `--app-role needs a value, as in --app-role ROLE`},
		{[]string{"tail", "--count"}, nil, `--count needs a value, as in --count N`},
		{[]string{"serve", "--heartbeat", "15"}, nil, `--heartbeat: 15 has no unit: add ms, s, m, h or d, as in 500ms or 15s`},
		{[]string{"serve", "--heartbeat", "0s"}, nil, `--heartbeat: 0s is not from 1ms to 1d`},
		{[]string{"serve", "--drain=-1s"}, nil, `--drain: -1s is not from 1ms to 6s`},
		{[]string{"serve", "--drain=6001ms"}, nil, `--drain: 6001ms is not from 1ms to 6s`},
		{[]string{"serve", "--replays", "0"}, nil, `--replays: 0 is not from 1 to 1000`},
		{[]string{"serve", "--max-connections", "-1"}, nil, `--max-connections: -1 is not from 0 to 10000000`},
		{[]string{"serve", "--max-connections=-1"}, nil, `--max-connections: -1 is not from 0 to 10000000`},
		{[]string{"serve", "--max-connections-per-user=-1"}, nil, `--max-connections-per-user: -1 is not from 0 to 10000000`},
		{[]string{"serve", "--trusted-proxy=0.0.0.0/0"}, nil, `--trusted-proxy: "0.0.0.0/0" contains all addresses: every client could then claim any address`},
		{[]string{"serve", "--trusted-proxy=::ffff:10.0.0.0/104"}, nil, `--trusted-proxy: "::ffff:10.0.0.0/104" is an IPv4 network in IPv6 notation: write it as an IPv4 network`},
		{[]string{"serve", "--trusted-proxy=nginx"}, nil, `--trusted-proxy: "nginx" is neither a network, such as 10.0.0.0/8 or fd00::/8, nor an address`},
		{[]string{"migrate", "--app-role", ""}, nil, `--app-role: the value is empty`},
		{[]string{"migrate", "--app-role=public"}, nil, `--app-role: "public" ` + noRole},
		{[]string{"migrate", "--app-role=PUBLIC"}, nil, `--app-role: "PUBLIC" ` + noRole},
		{[]string{"migrate", "--hub-role=None"}, nil, `--hub-role: "None" ` + noRole},
		{[]string{"migrate", "--hub-role=current_user"}, nil, `--hub-role: "current_user" ` + noRole},
		{[]string{"migrate", "--hub-role=CURRENT_ROLE"}, nil, `--hub-role: "CURRENT_ROLE" ` + noRole},
		{[]string{"migrate", "--hub-role=session_user"}, nil, `--hub-role: "session_user" ` + noRole},
		{[]string{"migrate", "--hub-role=" + strings.Repeat("x", 64)}, nil, `--hub-role: "` + strings.Repeat("x", 64) + `" cannot be the name of a role, which has 1 to 63 bytes of UTF-8`},
		{[]string{"serve", "--retain=-1h"}, nil, `--retain: -1h is not from 0s to 36500d`},
		{[]string{"serve", "--retain", "7w"}, nil, `--retain: "7w" is not a duration such as 500ms, 15s, 12h or 7d`},
		{[]string{"serve", "--retain", ""}, nil, `--retain: "" is not a duration such as 500ms, 15s, 12h or 7d`},
		{[]string{"serve", "--memory", "64 MB/s"}, nil, `--memory: "64 MB/s" is not a size such as 64KiB, 16MiB or 1GiB`},
		{[]string{"serve", "--memory=-1"}, nil, `--memory: -1 has no unit: add KiB, MiB or GiB, as in 64MiB`},
		{[]string{"serve", "--memory", "64"}, nil, `--memory: 64 has no unit: add KiB, MiB or GiB, as in 64MiB`},
		{[]string{"serve", "--memory", "0B"}, nil, `--memory: 0B is not from 1B to 1TiB`},
		{[]string{"serve", "--memory", "nan"}, nil, `--memory: "nan" is not a size such as 64KiB, 16MiB or 1GiB`},
		{[]string{"serve", "--memory", "1e300GiB"}, nil, `--memory: "1e300GiB" is not a size such as 64KiB, 16MiB or 1GiB`},
		{[]string{"serve", "--log-format", "xml"}, nil, `--log-format must be one of "text","json" but got "xml"`},
		{[]string{"serve", "--insecure-uid=everywhere"}, nil, `--insecure-uid: "everywhere" is not a value of this flag: use "loopback" or "anywhere"`},
		{[]string{"serve", "--cors-origin=*"}, nil, `--cors-origin: "*" is refused: requests for streams carry the user's cookies, so each origin must be named`},
		{[]string{"serve", "--cors-origin=https://*.example.com"}, nil, `--cors-origin: "*" is refused: requests for streams carry the user's cookies, so each origin must be named`},
		{[]string{"serve", "--cors-origin=NULL"}, nil, `--cors-origin: "null" is refused: any page can have this origin`},
		{[]string{"serve", "--cors-origin=null"}, nil, `--cors-origin: "null" is refused: any page can have this origin`},
		{[]string{"serve", "--cors-origin=https://a.example/"}, nil, sentAs("https://a.example")},
		{[]string{"serve", "--cors-origin=http://a.example:8080/path?x=1#y"}, nil, sentAs("http://a.example:8080")},
		{[]string{"serve", "--cors-origin=HTTPS://A.example"}, nil, sentAs("https://a.example")},
		{[]string{"serve", "--cors-origin=https://me:secret@a.example"}, nil, sentAs("https://a.example")},
		{[]string{"serve", "--cors-origin=https://a.example:443"}, nil, sentAs("https://a.example")},
		{[]string{"serve", "--cors-origin=https://a.example:"}, nil, sentAs("https://a.example")},
		{[]string{"serve", "--cors-origin=http://[::1]:0080"}, nil, sentAs("http://[::1]")},
		{[]string{"serve", "--cors-origin=a.example:80"}, nil, noOrigin("a.example:80")},
		{[]string{"serve", "--cors-origin=//a.example"}, nil, noOrigin("//a.example")},
		{[]string{"serve", "--cors-origin=https:///"}, nil, noOrigin("https:///")},
		{[]string{"serve", "--cors-origin=https://a.example, https://b.example"}, nil, noOrigin(" https://b.example")},
		{[]string{"serve", "--cors-origin=https://a.example:65536"}, nil, noOrigin("https://a.example:65536")},
		{[]string{"serve", "--cors-origin="}, nil, `--cors-origin: the value is empty`},
		{[]string{"serve", "--cors-origin=a.example"}, nil, noOrigin("a.example")},
		{[]string{"serve", "--cors-origin=https://bücher.example"}, nil, `--cors-origin: "bücher.example": browsers send this name in ASCII; write it as they do (xn--…)`},
		{[]string{"serve", "--cors-origin=https://a!b.example"}, nil, `--cors-origin: "a!b.example" is not the name of a host: it has a character that is not a letter, a digit, a hyphen, an underscore or a dot`},
		{[]string{"serve", "--cors-header=*"}, nil, `--cors-header: "*" is refused: name each header that the pages send`},
		{[]string{"serve", "--cors-header=traceparent,x:y"}, nil, `--cors-header: "x:y" is not the name of a header, such as traceparent or X-Requested-With`},
		{[]string{"serve", "--cors-header=traceparent, baggage"}, nil, `--cors-header: " baggage" is not the name of a header, such as traceparent or X-Requested-With`},
		{[]string{"serve", "--cors-header="}, nil, `--cors-header: the value is empty`},
		{[]string{"serve", "--public", "--cors-header=traceparent"}, nil, `--cors-header has no effect without --cors-origin, which allows pages of another origin`},
		{[]string{"client", "rowcast-inbox.js", "--name"}, nil, `client: --name: only rowcast.js has a name with a hash, because the scripts import each other by their plain names`},
		{[]string{"serve", "--public", "--inbox"}, nil, `--inbox has no effect with --public alone, because an inbox belongs to a user: also give an authentication method, such as --auth-url`},
		{[]string{"serve", "--events-path", ""}, nil, `--events-path: "" must begin with /, as in /events`},
		{[]string{"serve", "--events-path=stream"}, nil, `--events-path: "stream" must begin with /, as in /events`},
		{[]string{"serve", "--events-path=/stream?x=1"}, nil, `--events-path: "/stream?x=1" ` + noPath},
		{[]string{"serve", "--events-path=/{user}/*"}, nil, `--events-path: "/{user}/*" ` + noPath},
		{[]string{"serve", "--events-path=/a%20b"}, nil, `--events-path: "/a%20b" ` + noPath},
		{[]string{"serve", "--events-path=/stream/"}, nil, `--events-path: "/stream/" is not in its shortest form: write /stream`},
		{[]string{"serve", "--events-path=//a/../stream"}, nil, `--events-path: "//a/../stream" is not in its shortest form: write /stream`},
		{[]string{"serve", "--unavailable-status=404"}, nil, `--unavailable-status: "404" ` + noRetryStatus},
		{[]string{"serve", "--unavailable-status=5xx"}, nil, `--unavailable-status: "5xx" ` + noRetryStatus},
		{[]string{"tail", "--uid=a", "--token=b"}, nil, `--uid and --token can't be used together`},
		{[]string{"tail", "--url=ws://a"}, nil, "--url: " + noScheme},
		{[]string{"tail", "--token", ""}, nil, `--token: the value is empty`},
		{[]string{"token", "--sub", "alice", "--jwt-audience="}, nil, `--jwt-audience: the value is empty`},
		{[]string{"tail", "--count=-1"}, nil, `--count: -1 is not from 0 to 1000000000`},
		{[]string{"tail", "--last-event-id=a\nb"}, nil, noID},
		{[]string{"tail", "--last-event-id=a\u009b1m"}, nil, noID},
		{[]string{"tail", "--last-event-id=a\x7f"}, nil, noID},

		{[]string{"serve", "--auth-timeout", "0s"}, nil, `--auth-timeout: 0s is not from 1ms to 30s`},
		{[]string{"serve", "--auth-timeout", "-1s"}, nil, `--auth-timeout: -1s is not from 1ms to 30s`},
		{[]string{"serve", "--auth-timeout", "31s"}, nil, `--auth-timeout: 31s is not from 1ms to 30s`},
		{[]string{"serve", "--auth-grace", "-1s"}, nil, `--auth-grace: -1s is not from 0s to 30d`},
		{[]string{"serve", "--jwt-leeway", "61s"}, nil, `--jwt-leeway: 61s is not from 0s to 1m`},
		{[]string{"serve", "--jwt-leeway", "-1s"}, nil, `--jwt-leeway: -1s is not from 0s to 1m`},
		{[]string{"serve", "--jwt-audience", ""}, nil, `--jwt-audience: the value is empty`},
		{[]string{"serve", "--jwt-audience", "a, b"}, nil, `--jwt-audience: remove the space at the beginning or end of " b"`},
		{[]string{"serve"}, environment{"ROWCAST_JWT_AUDIENCE": "a, ,b"}, `--jwt-audience: the list has an empty value`},
		{[]string{"serve", "--group-mark="}, nil, `--group-mark: the value is empty`},
		{[]string{"serve", "--group-mark=:\n"}, nil, `--group-mark: the mark contains a control character`},
		{[]string{"serve", "--group-mark=\u0085"}, nil, `--group-mark: the mark contains a control character`},
		{[]string{"serve", "--group-mark=:\xff"}, nil, `--group-mark: the mark is not valid UTF-8`},
		{[]string{"serve", "--group-mark=" + strings.Repeat("x", 256)}, nil, `--group-mark: the mark must be shorter than a group's name, which has at most 256 bytes`},
		{[]string{"token", "--sub=alice", "--group-mark=" + strings.Repeat("x", 1000)}, nil, `--group-mark: the mark must be shorter than a group's name, which has at most 256 bytes`},
		{[]string{"serve", "--auth-url", "http://me:secret@app.example/auth"}, nil, `--auth-url: the URL must not contain a user or a password, because the app would mistake them for the client's credentials`},

		{[]string{"serve"}, environment{"ROWCAST_HEARTBEAT": "soon"}, `--heartbeat: from $ROWCAST_HEARTBEAT: "soon" is not a duration such as 500ms, 15s, 12h or 7d`},
		{[]string{"serve"}, environment{"ROWCAST_CORS_ORIGIN": "https://a.example,*"}, `--cors-origin: from $ROWCAST_CORS_ORIGIN: "*" is refused: requests for streams carry the user's cookies, so each origin must be named`},
		{[]string{"serve"}, environment{"ROWCAST_INSECURE_UID": "maybe"}, `--insecure-uid: from $ROWCAST_INSECURE_UID: "maybe" is not a value of this flag: use "loopback" or "anywhere"`},
		{[]string{"serve"}, environment{"ROWCAST_REPLAYS": "0"}, `--replays: from $ROWCAST_REPLAYS: 0 is not from 1 to 1000`},
	}
	for _, tt := range tests {
		code, stdout, stderr := run(t, tt.env, tt.args...)
		if want := "rowcast: " + tt.want + "\n"; code != 2 || stdout != "" || stderr != want {
			t.Errorf("rowcast %q %v: got %d, stdout %q, stderr %q, want 2, no stdout, and stderr %q", tt.args, tt.env, code, stdout, stderr, want)
		}
	}
}

const (
	commands = "; the commands are demo, migrate, serve, tail, client, token, watch, unwatch, doctor, and rowcast --help explains them"
	noID     = `tail: --last-event-id: the id contains control characters, so it is not the id of an event`
	noURL    = "this is not a URL such as https://app.example.com/path; special characters in it must be percent-encoded"
	noPath   = "must be a path without a query, and contain only letters, digits and - . _ ~ /"
	noScheme = "the URL must begin with http:// or https://, as in http://127.0.0.1:3000/path or https://app.example.com/path"
	fragment = "remove the fragment (# and what follows it), which is never sent; if # is part of a name, write %23"

	noRetryStatus = "is not 200, 500, 502, 503 or 504: give 200, or a status after which a proxy such as nginx can try another hub"

	noRole = "is a keyword of SQL and not the name of a role"
)

func noOrigin(value string) string {
	return `--cors-origin: "` + value + `" is not an origin: a scheme and a host, such as https://app.example.com, and the port if it is not the default`
}

func sentAs(origin string) string {
	return `--cors-origin: browsers send this origin as "` + origin + `"; write it as they do`
}

// An error about a URL does not contain the URL, because a URL may contain a password or a key.
func TestURLsAreNotShown(t *testing.T) {
	t.Parallel()
	for _, flag := range []string{"serve --auth-url", "serve --jwks-url", "tail --url"} {
		for url, want := range map[string]string{
			"http://me:secret%zz@app.example/auth":     noURL,
			"http://me:secret@app.example:port/auth":   noURL,
			"http://app.example:port/auth?key=secret":  noURL,
			"http://app.example:65536/?key=secret":     noURL,
			"http://app.example:0/?key=secret":         noURL,
			"ftp://me:secret@app.example/?key=secret":  noScheme,
			"file:///etc/secret":                       noScheme,
			"http://app.example/b#secret":              fragment,
			"https://app.example/b?key=secret#":        fragment,
			"https:///auth?key=secret":                 noURL,
			"127.0.0.1:3000/x?key=secret":              noScheme,
			"localhost:3000/x":                         noScheme,
			"me:secret@app.example/auth":               noScheme,
			"http:/me:secret@app.example/?key=secret1": noScheme,
		} {
			command, name, _ := strings.Cut(flag, " ")
			variable := "ROWCAST_" + strings.ToUpper(strings.ReplaceAll(strings.Trim(name, "-"), "-", "_"))
			code, _, stderr := run(t, nil, command, name, url)
			if want := "rowcast: " + name + ": " + want + "\n"; code != 2 || stderr != want {
				t.Errorf("%s %s: got %d, %q, want 2, %q", flag, url, code, stderr, want)
			}
			code, _, stderr = run(t, environment{variable: url}, command)
			if want := "rowcast: " + name + ": from $" + variable + ": " + want + "\n"; code != 2 || stderr != want {
				t.Errorf("%s=%s: got %d, %q, want 2, %q", variable, url, code, stderr, want)
			}
		}
	}
}

// A valid URL in a variable is accepted. The command then fails for another reason.
func TestURLsInVariables(t *testing.T) {
	t.Parallel()
	const url = "https://app.example/path?key=secret"
	dsn, says := noDatabase(t)
	code, _, stderr := run(t, environment{"ROWCAST_AUTH_URL": url, "ROWCAST_DATABASE_URL": dsn, "ROWCAST_LISTEN": "127.0.0.1:0"}, "serve")
	if want := "rowcast: " + says + "\n"; code != 1 || stderr != want {
		t.Errorf("serve: got %d, %q, want 1, %q", code, stderr, want)
	}
	code, _, stderr = run(t, environment{"ROWCAST_URL": url}, "tail", "--count=-1")
	if want := "rowcast: --count: -1 is not from 0 to 1000000000\n"; code != 2 || stderr != want {
		t.Errorf("tail: got %d, %q, want 2, %q", code, stderr, want)
	}
}

// A flag of an authentication method that is not selected is refused, also if it is set by its variable, because the
// operator expects that it has an effect. A boolean flag that is false is accepted.
func TestIgnoredFlagsAreRefused(t *testing.T) {
	t.Parallel()
	const tokens, app, uid = "tokens (--jwt-secret, --jwt-secret-file, --jwt-key, --jwks-url)", "--auth-url", "--insecure-uid"
	ways := map[string][]string{tokens: {"--jwt-secret", secret}, app: {"--auth-url", "http://127.0.0.1:1/auth"}, uid: {"--insecure-uid"}}
	dsn, says := noDatabase(t)
	for _, tt := range []struct {
		flag, value, with string
		ways              []string // the methods with which the flag is accepted
	}{
		{"jwt-issuer", "me", tokens, []string{tokens}},
		{"jwt-audience", "me", tokens, []string{tokens}},
		{"jwt-groups-claim", "groups", tokens, []string{tokens}}, // the default, given explicitly
		{"jwt-cookie", "session", tokens, []string{tokens}},
		{"jwt-leeway", "0s", tokens, []string{tokens}},
		{"jwt-without-exp", "true", tokens, []string{tokens}},
		{"jwt-without-exp", "false", "", []string{tokens, app, uid}},
		{"auth-timeout", "5s", app, []string{app}},
		{"auth-grace", "0s", app, []string{app}},
		{"group-mark", "/", tokens + " or " + app + " or --public", []string{tokens, app}},
		{"cors-origin", "https://app.example", "", []string{tokens, app, uid}},
	} {
		variable := "ROWCAST_" + strings.ToUpper(strings.ReplaceAll(tt.flag, "-", "_"))
		for way, chosen := range ways {
			args := append([]string{"serve", "--listen", "127.0.0.1:0", "--database-url", dsn}, chosen...)
			given := map[string]func() (int, string, string){
				"--" + tt.flag: func() (int, string, string) { return run(t, nil, append(args, "--"+tt.flag+"="+tt.value)...) },
				"--" + tt.flag + " (from $" + variable + ")": func() (int, string, string) { return run(t, environment{variable: tt.value}, args...) },
			}
			for name, run := range given {
				want, exit := "rowcast: "+name+" has no effect with "+way+": it belongs to "+tt.with+"\n", 2
				if slices.Contains(tt.ways, way) {
					want, exit = "rowcast: "+says+"\n", 1
				}
				if code, _, stderr := run(); code != exit || !strings.HasSuffix(stderr, want) {
					t.Errorf("%s=%s with %s: got %d, %q, want %d and %q at the end", name, tt.value, way, code, stderr, exit, want)
				}
			}
		}
	}
}

// An --admin-listen address that is not loopback causes a warning at start.
func TestAdminListenWarning(t *testing.T) {
	t.Parallel()
	dsn, _ := noDatabase(t)
	for address, warns := range map[string]bool{"0.0.0.0:0": true, ":0": true, "192.0.2.1:0": true, "[::]:0": true, "127.0.0.1:0": false, "[::1]:0": false, "localhost:0": false} {
		_, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn, "--admin-listen", address)
		want := `level=WARN msg="anybody who can reach the admin address can end streams and read the metrics" flag=--admin-listen addr=` + address + "\n"
		if strings.Contains(stderr, want) != warns {
			t.Errorf("%s: got %s, want a warning: %v", address, stderr, warns)
		}
	}
}

func TestRunUsesTheGivenEnvironment(t *testing.T) {
	t.Setenv("ROWCAST_HEARTBEAT", "soon")
	t.Setenv("ROWCAST_INSECURE_UID", "anywhere")
	code, _, stderr := run(t, nil, "serve")
	if code != 2 || !strings.HasPrefix(stderr, "rowcast: no authentication is configured, so") {
		t.Errorf("got %d, %q, want 2 and the error that no authentication is configured", code, stderr)
	}
}
