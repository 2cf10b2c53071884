package main_test

import (
	"encoding/pem"
	"strings"
	"testing"
)

// A hub with matching settings accepts the token of rowcast token. The standard output contains only the token.
func TestTokenIsAccepted(t *testing.T) {
	t.Parallel()
	h := secure(t, "--jwt-secret", secret, "--jwt-key", fileOf(t, pemOf(t, pairs().rsa.Public()), pemOf(t, pairs().ed.Public()), pemOf(t, pairs().ec.Public())), "--jwt-issuer", "me", "--jwt-audience", "a,b")
	for name, args := range map[string][]string{
		"secret": nil, "RSA": {"--jwt-private-key", fileOf(t, pemOf(t, pairs().rsa))}, "Ed25519": {"--jwt-private-key", fileOf(t, pemOf(t, pairs().ed))},
		"a certificate and its key":        {"--jwt-private-key", fileOf(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}), pemOf(t, pairs().rsa))},
		"EC, as openssl ecparam writes it": {"--jwt-private-key", fileOf(t, pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS"}), pemOf(t, pairs().ec))},
	} {
		env := environment{"ROWCAST_JWT_SECRET": secret, "ROWCAST_JWT_ISSUER": "me", "ROWCAST_JWT_AUDIENCE": "c, b"}
		code, stdout, stderr := run(t, env, append([]string{"token", "--sub", "alice", "--group", "team:7", "--expires", "1m"}, args...)...)
		token := strings.TrimSuffix(stdout, "\n")
		if code != 0 || stderr != "" || strings.ContainsAny(token, " \n") {
			t.Fatalf("%s: got %d, %q, %q, want 0 and only a token", name, code, stdout, stderr)
		}
		tail := start(t, environment{"ROWCAST_TOKEN": token}, "tail", "--verbose", "--json", "--url", h.url+"/events")
		tail.out.await(t, `"recipients":\["alice","team:7"\]`)
	}
}

// Without a usable key, or with claims that a hub would refuse, rowcast token signs no token. The error says what is
// wrong.
func TestTokenThatIsRefused(t *testing.T) {
	t.Parallel()
	k := pairs()
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "AES-256-CBC,00"}, Bytes: []byte("x")})
	for want, args := range map[string][]string{
		"there is no key to sign with: give --jwt-secret (or $ROWCAST_JWT_SECRET), --jwt-secret-file or --jwt-private-key": nil,
		"the secret is too short: it has 31 bytes and needs at least 32":                                                   {"--jwt-secret", secret[:31]},
		`the user's id contains ":", which only the name of a group may`:                                                   {"--sub", "team:7", "--jwt-secret", secret},
		`the name of a group does not contain ":", so it could be a user's id`:                                             {"--group", "bob", "--jwt-secret", secret},
		`the topic "ticket" does not contain ":", so it could be a user's id`:                                              {"--topic", "ticket:1", "--topic", "ticket", "--jwt-secret", secret},
		"a topic contains a control character":                                                                             {"--topic", "ticket:\n", "--jwt-secret", secret},
		"--expires: 0s is not from 1s to 3650d":                                                                            {"--expires", "0s", "--jwt-secret", secret},
		`--jwt-groups-claim: "sub" is not a claim that can contain groups`:                                                 {"--jwt-groups-claim", "sub", "--jwt-secret", secret},
		"this is a public key, which only the hub uses: give the matching private key":                                     {"--jwt-private-key", fileOf(t, pemOf(t, k.rsa.Public()))},
		"the key is not supported: use RSA with 2048 to 16384 bits, ":                                                      {"--jwt-private-key", fileOf(t, pemOf(t, k.smallRSA))},
		"the file is not in PEM format: give a file that openssl genpkey has written":                                      {"--jwt-private-key", fileOf(t, []byte(secret))},
		`the file contains "CERTIFICATE", and no private key in a format that rowcast reads: give a file that openssl `:    {"--jwt-private-key", fileOf(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE"}))},
		`the file contains "OPENSSH PRIVATE KEY", and no private key in a format that rowcast reads: give a file that `:    {"--jwt-private-key", fileOf(t, pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY"}))},
		"the key is encrypted: remove the passphrase":                                                                      {"--jwt-private-key", fileOf(t, encrypted)},
	} {
		code, stdout, stderr := run(t, nil, append([]string{"token", "--sub", "alice"}, args...)...)
		if code != 2 || stdout != "" || !strings.HasPrefix(stderr, "rowcast: ") || !strings.Contains(stderr, want) {
			t.Errorf("%v: got %d, %q, %q, want 2, \"\", and %q in the error", args, code, stdout, stderr, want)
		}
	}
}
