package main_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/sql/dbtest"
)

// The hub denies each token of the table. No answer, log line or metric contains the token's header, payload or
// signature.
func TestAttacksWithTokens(t *testing.T) {
	t.Parallel()
	public := pemOf(t, pairs().rsa.Public())
	h := secure(t, "--jwt-secret", secret, "--jwt-key", fileOf(t, public, pemOf(t, pairs().ec.Public()), pemOf(t, pairs().ed.Public())),
		"--jwt-issuer", "https://issuer.example", "--jwt-audience", "rowcast", "--jwt-audience", "other", "--jwt-cookie", "session")
	file := fileOf(t, []byte(otherSecret))
	const unsigned = "the token is not signed by a configured key"
	hs, none := jwt.SigningMethodHS256, jwt.SigningMethodNone
	by := func(key []byte) string { return sign(t, hs, key, claims(nil)) }
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	raw := func(payload string) string { // signs any payload
		text := part(`{"alg":"HS256"}`) + "." + part(payload)
		signature, err := hs.Sign(text, []byte(secret))
		if err != nil {
			t.Fatal(err)
		}
		return text + "." + base64.RawURLEncoding.EncodeToString(signature)
	}
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	good := `,"exp":9999999999,"iss":"https://issuer.example","aud":"rowcast"}`
	many := make([]string, 101)
	for i := range many {
		many[i] = fmt.Sprintf("team:%d", i)
	}
	const notGroups = "the token's groups are not an array of strings"
	tests := []struct {
		name, token string
		status      int
		want        string
	}{
		{"alg none", sign(t, none, jwt.UnsafeAllowNoneSignatureType, claims(nil)), 401, unsigned},
		{"alg none with the signature of a valid token", part(`{"alg":"none"}`) + "." + strings.SplitAfterN(signed(t, nil), ".", 2)[1], 401, unsigned},
		{"alg unknown", part(`{"alg":"HS1"}`) + "." + part(`{"sub":"alice"`+good) + ".", 401, unsigned},
		{"HS256 with the public key as secret", by(public), 401, unsigned},
		{"HS256 with an empty secret", by([]byte{}), 401, unsigned},
		{"HS256 with another secret", by([]byte(otherSecret)), 401, unsigned},
		{"HS256 with the first 32 bytes of the secret", by([]byte(secret[:32])), 401, unsigned},
		{"HS256 with the first 31 bytes of the secret", by([]byte(secret[:31])), 401, unsigned},
		{"HS512 with the secret", sign(t, jwt.SigningMethodHS512, []byte(secret), claims(nil)), 401, unsigned},
		{"RS256 with another key", sign(t, jwt.SigningMethodRS256, pairs().otherRSA, claims(nil)), 401, unsigned},
		{"ES384 with a key of another curve", sign(t, jwt.SigningMethodES384, pairs().ec384, claims(nil)), 401, unsigned},
		{"an RS256 token whose header says HS256", part(`{"alg":"HS256"}`) + "." + strings.SplitAfterN(sign(t, jwt.SigningMethodRS256, pairs().rsa, claims(nil)), ".", 2)[1], 401, unsigned},
		{"changed after signing", strings.Replace(signed(t, nil), ".", "."+part(`{"a":"`)[:4], 1), 401, "the token is malformed"},
		{"expired", signed(t, jwt.MapClaims{"exp": in(-time.Minute)}), 401, "the token has expired"},
		{"without exp", signed(t, jwt.MapClaims{"exp": nil}), 401, "the token has no exp"},
		{"exp is text", signed(t, jwt.MapClaims{"exp": "tomorrow"}), 401, "the token's exp is not a time in seconds since 1970"},
		{"exp is null", raw(`{"sub":"alice","exp":null,"iss":"https://issuer.example","aud":"rowcast"}`), 401, "the token's exp is not a time in seconds since 1970"},
		{"exp is too large", signed(t, jwt.MapClaims{"exp": 1e30}), 401, "the token's exp is not a time in seconds since 1970"},
		{"exp in milliseconds", signed(t, jwt.MapClaims{"exp": time.Now().UnixMilli()}), 401, "the token's exp is not a time in seconds since 1970"},
		{"exp is zero", signed(t, jwt.MapClaims{"exp": 0}), 401, "the token has expired"},
		{"nbf is text", signed(t, jwt.MapClaims{"nbf": "yesterday"}), 401, "the token's nbf is not a time in seconds since 1970"},
		{"not yet valid", signed(t, jwt.MapClaims{"nbf": in(time.Minute)}), 401, "the token is not valid yet"},
		{"another audience", signed(t, jwt.MapClaims{"aud": []string{"bank"}}), 401, "the token is for another audience"},
		{"no audience", signed(t, jwt.MapClaims{"aud": nil}), 401, "the token has no aud"},
		{"the audience is a number", signed(t, jwt.MapClaims{"aud": 7}), 401, "the token's iss or aud is empty or has a wrong type"},
		{"an empty audience", signed(t, jwt.MapClaims{"aud": []string{}}), 401, "the token's iss or aud is empty or has a wrong type"},
		{"no issuer", signed(t, jwt.MapClaims{"iss": nil}), 401, "the token has no iss"},
		{"the issuer is in an array", signed(t, jwt.MapClaims{"iss": []string{"https://issuer.example"}}), 401, "the token's iss or aud is empty or has a wrong type"},
		{"another issuer", signed(t, jwt.MapClaims{"iss": "https://issuer.example.evil"}), 401, "the token is from another issuer"},
		{"crit", sign(t, hs, []byte(secret), claims(nil), "crit", "exp"), 401, "the token has a crit header, which is not supported"},
		{"kid is the path of a file", sign(t, hs, []byte(otherSecret), claims(nil), "kid", file), 401, unsigned},
		{"kid is a relative path to a file", sign(t, hs, []byte(otherSecret), claims(nil), "kid", "../../../../../../../.."+file), 401, unsigned},
		{"kid is the path of an empty file", sign(t, hs, []byte{}, claims(nil), "kid", "/dev/null"), 401, unsigned},
		{"kid is SQL", sign(t, hs, []byte(otherSecret), claims(nil), "kid", "' UNION SELECT 'x"), 401, unsigned},
		{"its own key in jwk", sign(t, hs, []byte(otherSecret), claims(nil), "jwk", map[string]string{"kty": "oct", "k": part(otherSecret)}), 401, unsigned},
		{"its own key at jku", sign(t, jwt.SigningMethodRS256, pairs().otherRSA, claims(nil), "jku", "http://127.0.0.1:1/keys"), 401, unsigned},
		{"oversized", signed(t, jwt.MapClaims{"x": strings.Repeat("x", 8<<10)}), 401, "the token is longer than 8 KiB"},
		{"four parts", signed(t, nil) + ".x", 401, "the token is malformed"},
		{"empty", "", 401, "the token is empty"},
		{"sub missing", signed(t, jwt.MapClaims{"sub": nil}), 403, "the user's id is empty"},
		{"sub empty", signed(t, jwt.MapClaims{"sub": ""}), 403, "the user's id is empty"},
		{"sub is everyone", signed(t, jwt.MapClaims{"sub": "*"}), 403, `the user's id is "*", which means everyone`},
		{"sub too long", signed(t, jwt.MapClaims{"sub": strings.Repeat("x", 257)}), 403, "the user's id is longer than 256 bytes"},
		{"sub is a number", signed(t, jwt.MapClaims{"sub": 7}), 403, "the token's sub is not a string"},
		{"sub with NUL", signed(t, jwt.MapClaims{"sub": "a\x00"}), 403, "the user's id contains a control character"},
		{"sub with CR and LF", signed(t, jwt.MapClaims{"sub": "a\r\ndata: x\n\n"}), 403, "the user's id contains a control character"},
		{"sub is not UTF-8", raw(`{"sub":"a` + "\xff" + `"` + good), 403, "the user's id is not valid UTF-8"},
		{"sub is a single surrogate", raw(`{"sub":"\ud800"` + good), 403, "the user's id is not valid UTF-8"},
		{"sub is the name of a group", signed(t, jwt.MapClaims{"sub": "team:7"}), 403, `the user's id contains ":", which only the name of a group may`},
		{"a group is a user's id", signed(t, jwt.MapClaims{"groups": []string{"team:7", "bob"}}), 403, `the name of a group does not contain ":", so it could be a user's id`},
		{"a group with LF", signed(t, jwt.MapClaims{"groups": []string{"team:\n"}}), 403, "the name of a group contains a control character"},
		{"groups is text", signed(t, jwt.MapClaims{"groups": "team:7"}), 403, notGroups},
		{"groups has a number", signed(t, jwt.MapClaims{"groups": []any{"team:7", 7}}), 403, notGroups},
		{"too many groups", signed(t, jwt.MapClaims{"groups": many}), 403, "more than 100 groups"},
	}
	said := ""
	for _, tt := range tests {
		for where, headers := range map[string][]string{"header": bearer(tt.token), "cookie": {"Cookie", "session=" + tt.token}} {
			status, says := listenTo(t, h, "", headers...)
			if status != tt.status || !strings.HasSuffix(says, "\r\n\r\n"+tt.want+"\n") {
				t.Errorf("%s, in the %s: got %d, %s, want %d and the body %q", tt.name, where, status, says, tt.status, tt.want)
			}
			said += says
		}
	}
	said += h.err.String() + ask(t, "GET", h.url+"/metrics").body
	for _, want := range []string{`level=INFO msg="a stream was denied" status=401 reason="the token has expired" from=127.0.0.1:`, fmt.Sprintf("rowcast_auth_denied_total %d\n", 2*len(tests))} {
		if !strings.Contains(said, want) {
			t.Errorf("the answers, the log and the metrics: got %s, want %q in it", said, want)
		}
	}
	for _, tt := range tests {
		if i := slices.IndexFunc(strings.Split(tt.token, "."), func(part string) bool { return len(part) > 4 && strings.Contains(said, part) }); i >= 0 {
			t.Errorf("%s: an answer, the log or a metric contains part %d of the token, counted from 0", tt.name, i)
		}
	}
}

// The user and the groups of a valid token are the recipients of the stream. The token may be signed by any configured
// key. A Bearer token in the Authorization header has priority over the cookies. Cookies without a valid token are
// ignored if another cookie has one. The hub denies a request without a valid token, with several Authorization
// headers, with more than ten cookies of the configured name, or with valid cookies of different users. It also denies
// a request with a user, a group or a token in the URL.
func TestGoodTokens(t *testing.T) {
	t.Parallel()
	k := pairs()
	h := secure(t, "--jwt-secret", secret, "--jwt-secret-file", fileOf(t, []byte(otherSecret+"\n")), "--jwt-secret", secret[:32], "--jwt-cookie", "session", "--jwt-groups-claim", "https://app.example/teams",
		"--jwt-key", fileOf(t, pemOf(t, k.rsa.Public()), pemOf(t, k.ec384.Public())), "--jwt-key", fileOf(t, pemOf(t, k.ed.Public())))
	bob, carol := signed(t, jwt.MapClaims{"sub": "bob"}), signed(t, jwt.MapClaims{"sub": "carol"})
	expired := signed(t, jwt.MapClaims{"exp": time.Now().Add(-time.Hour).Unix()})
	const alice = `{"recipients":["alice"],"heartbeat":15}`
	tests := []struct {
		name    string
		headers []string
		status  int
		want    string
	}{
		{"a secret", bearer(signed(t, nil)), 200, alice},
		{"another secret", bearer(sign(t, jwt.SigningMethodHS256, []byte(otherSecret), claims(nil))), 200, alice},
		{"a configured secret of 32 bytes", bearer(sign(t, jwt.SigningMethodHS256, []byte(secret[:32]), claims(nil))), 200, alice},
		{"the first 31 bytes of a secret", bearer(sign(t, jwt.SigningMethodHS256, []byte(secret[:31]), claims(nil))), 401, "the token is not signed by a configured key\n"},
		{"RS256", bearer(sign(t, jwt.SigningMethodRS256, k.rsa, claims(nil))), 200, alice},
		{"PS384", bearer(sign(t, jwt.SigningMethodPS384, k.rsa, claims(nil))), 200, alice},
		{"ES384", bearer(sign(t, jwt.SigningMethodES384, k.ec384, claims(nil))), 200, alice},
		{"EdDSA", bearer(sign(t, jwt.SigningMethodEdDSA, k.ed, claims(nil))), 200, alice},
		{"clock skew within --jwt-leeway", bearer(signed(t, jwt.MapClaims{"exp": time.Now().Add(-2 * time.Second).Unix(), "nbf": time.Now().Add(2 * time.Second).Unix()})), 200, alice},
		{"groups", bearer(signed(t, jwt.MapClaims{"https://app.example/teams": []string{"team:7", "team:8", "team:7"}})), 200, `{"recipients":["alice","team:7","team:8"],"heartbeat":15}`},
		{"groups in another claim", bearer(signed(t, jwt.MapClaims{"groups": []string{"team:7"}})), 200, alice},
		{"a token in the cookie", []string{"Cookie", "a=b; session=" + bob + "; c=d"}, 200, `{"recipients":["bob"],"heartbeat":15}`},
		{"a token in the header and another one in the cookie", []string{"Authorization", "bearer " + bob, "Cookie", "session=" + carol}, 200, `{"recipients":["bob"],"heartbeat":15}`},
		{"an invalid header and a valid cookie", []string{"Authorization", "Bearer x", "Cookie", "session=" + carol}, 401, "the token is malformed\n"},
		{"a proxy's password and a cookie", []string{"Authorization", "Basic YTpi", "Cookie", "session=" + carol}, 200, `{"recipients":["carol"],"heartbeat":15}`},
		{"bearer in lower case", []string{"Authorization", "bearer " + bob}, 200, `{"recipients":["bob"],"heartbeat":15}`},
		{"BEARER and two spaces", []string{"Authorization", "BEARER  " + bob}, 200, `{"recipients":["bob"],"heartbeat":15}`},
		{"an empty cookie", []string{"Cookie", "session="}, 401, "the token is empty\n"},
		{"an empty cookie in quotes", []string{"Cookie", `session=""`}, 401, "the token is empty\n"},
		{"Bearer without a token, and a good cookie", []string{"Authorization", "Bearer ", "Cookie", "session=" + carol}, 401, "the token is empty\n"},
		{"an empty cookie and a good one", []string{"Cookie", "session=; session=" + carol}, 200, `{"recipients":["carol"],"heartbeat":15}`},
		{"a good cookie and an expired one", []string{"Cookie", "session=" + carol + "; session=" + expired}, 200, `{"recipients":["carol"],"heartbeat":15}`},
		{"two headers with a cookie each", []string{"Cookie", "session=" + bob, "Cookie", "session=" + carol}, 401, "the cookies named session have valid tokens of different users\n"},
		{"the same cookie twice", []string{"Cookie", "session=" + bob + "; session=" + bob}, 200, `{"recipients":["bob"],"heartbeat":15}`},
		{"two cookies", []string{"Cookie", "session=" + bob + "; session=" + carol}, 401, "the cookies named session have valid tokens of different users\n"},
		{"two cookies without a valid token", []string{"Cookie", "session=" + expired + "; session=x"}, 401, "none of the 2 cookies named session has a valid token; the error of the first one: the token has expired\n"},
		{"ten bad cookies and a good one", []string{"Cookie", strings.Repeat("session=x; ", 10) + "session=" + bob}, 401, "more than 10 cookies named session\n"},
		{"nine bad cookies and a good one", []string{"Cookie", strings.Repeat("session=x; ", 9) + "session=" + bob}, 200, `{"recipients":["bob"],"heartbeat":15}`},
		{"two headers", append(bearer(bob), bearer(carol)...), 401, "more than one Authorization header\n"},
		{"nothing", nil, 401, "send a token in the header Authorization: Bearer TOKEN, or in the cookie session\n"},
	}
	for _, tt := range tests {
		if status, says := listenTo(t, h, "", tt.headers...); status != tt.status || !strings.HasSuffix(says, tt.want) {
			t.Errorf("%s: got %d, %s, want %d and %s at the end", tt.name, status, says, tt.status, tt.want)
		}
	}
	for _, name := range []string{
		"uid", "user", "recipient", "sub", "group", "groups",
		"token", "access_token", "id_token", "jwt", "ticket", "auth", "bearer", "authorization",
	} {
		for _, written := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], "%" + fmt.Sprintf("%x", name[0]) + name[1:]} {
			status, says := listenTo(t, h, "?x=y&"+written+"=alice", bearer(bob)...)
			if want := "remove " + name + " from the URL: "; status != 400 || !strings.Contains(says, want) {
				t.Errorf("?%s=: got %d, %s, want 400 and %q in it", written, status, says, want)
			}
		}
	}
}

// Two secrets can be valid at the same time, so that a secret can be replaced. They can be in two files, or in the
// variable ROWCAST_JWT_SECRET and a file. The flag --jwt-secret replaces its variable.
func TestSecretsAreChanged(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	first, second := fileOf(t, []byte(secret)), fileOf(t, []byte(otherSecret+"\n"))
	variable := environment{"ROWCAST_JWT_SECRET": secret}
	for _, tt := range []struct {
		name   string
		env    environment
		args   []string
		status [2]int // for a token signed with secret, and for one signed with otherSecret
	}{
		{"two files", nil, []string{"--jwt-secret-file", first, "--jwt-secret-file", second}, [2]int{200, 200}},
		{"the variable and a file", variable, []string{"--jwt-secret-file", second}, [2]int{200, 200}},
		{"the variable and its flag", variable, []string{"--jwt-secret", otherSecret}, [2]int{401, 200}},
	} {
		p := start(t, tt.env, append([]string{"serve", "--listen=127.0.0.1:0", "--drain=10ms", "--database-url", dsn}, tt.args...)...)
		h := &hub{p, "http://" + p.err.await(t, `msg=listening addr=([0-9.:]+)`)[1]}
		for i, by := range []string{secret, otherSecret} {
			token := sign(t, jwt.SigningMethodHS256, []byte(by), claims(nil))
			if got, says := listenTo(t, h, "", bearer(token)...); got != tt.status[i] {
				t.Errorf("%s, a token signed with %q: got %d, %s, want %d", tt.name, by, got, says, tt.status[i])
			}
		}
	}
}

// A hub that accepts tokens without exp still denies a token whose exp is not a number, or is 0. The JWT library treats
// an exp of 0 as missing.
func TestTokensWithoutExp(t *testing.T) {
	t.Parallel()
	h := secure(t, "--jwt-secret", secret, "--jwt-without-exp")
	for want, exp := range map[string]any{
		aliceOnly:                 nil,
		"the token has expired\n": 0,
		"the token's exp is not a time in seconds since 1970\n": "never",
	} {
		if _, says := listenTo(t, h, "", bearer(signed(t, jwt.MapClaims{"exp": exp}))...); !strings.HasSuffix(says, want) {
			t.Errorf("exp %v: got %s, want %s at the end", exp, says, want)
		}
	}
}

// A hub does not start with weak keys, with files that are missing or do not contain the expected kind of key, with an
// invalid --jwt-cookie, or with two authentication methods. The error does not contain the secret.
func TestWeakKeysAreRefused(t *testing.T) {
	t.Parallel()
	k := pairs()
	for want, args := range map[string][]string{
		"it has 31 bytes and needs at least 32": {"--jwt-secret", secret[:31]},
		"it has 5 bytes":                        {"--jwt-secret-file", fileOf(t, []byte("short\r\n"))},
		"no such file":                          {"--jwt-secret-file", "/nowhere"},
		"begins with a byte order mark":         {"--jwt-secret-file", fileOf(t, []byte("\ufeff"+otherSecret))},
		"no public key in PEM":                  {"--jwt-key", fileOf(t, []byte("ssh-rsa AAAA"))},
		"only 1 of 3 PEM blocks can be read":    {"--jwt-key", fileOf(t, bytes.TrimSpace(pemOf(t, k.ed.Public())), pemOf(t, k.ec.Public()), pemOf(t, k.rsa.Public()))},
		"this is a private key, which only the app that signs tokens may have": {"--jwt-key", fileOf(t, pemOf(t, k.rsa))},
		"the key is not supported: use RSA with 2048 to 16384 bits":            {"--jwt-key", fileOf(t, pemOf(t, k.smallRSA.Public()))},
		"is not the name of a cookie":                                          {"--jwt-secret", secret, "--jwt-cookie", "a=b"},
		"give only one of --jwt-secret, --insecure-uid\n":                      {"--jwt-secret", secret, "--insecure-uid"},
	} {
		code, _, stderr := run(t, nil, append([]string{"serve", "--database-url", nobodyThere}, args...)...)
		if code != 2 || !strings.Contains(stderr, want) || strings.Contains(stderr, secret[:31]) {
			t.Errorf("%v: got %d, %s, want 2 and an error with %q but without the secret", args, code, stderr, want)
		}
	}
}
