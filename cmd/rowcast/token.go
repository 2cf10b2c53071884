package main

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/cmd/internal/flags"
	"rowcast/stream/auth"
)

type tokenCmd struct {
	Sub            string          `required:"" placeholder:"USER" help:"The id of the user (claim sub)."`
	Group          []string        `sep:"none" placeholder:"GROUP" help:"The name of a group of the user, such as team:7. Repeat the flag for more groups."`
	Topic          []string        `sep:"none" placeholder:"TOPIC" help:"A topic that the user may ask for, such as ticket:42. Topics that end with *, such as ticket:*, allow all topics with this beginning. Repeat the flag for more topics."`
	Expires        time.Duration   `default:"1h" min:"1s" max:"3650d" placeholder:"DURATION" help:"How long the token is valid (default ${default})."`
	JWTSecret      []string        `name:"jwt-secret" sep:"none" placeholder:"SECRET" help:"Sign with this secret of at least 32 bytes (HS256), or with the first of several. Other users of the machine can see a command line: prefer the variable or --jwt-secret-file."`
	JWTSecretFile  []string        `name:"jwt-secret-file" placeholder:"FILE" help:"Sign with the secret in this file, if --jwt-secret and its variable are not set."`
	Key            string          `name:"jwt-private-key" placeholder:"FILE" help:"Sign with the private key in this PEM file, even if a secret is given, too."`
	JWTIssuer      string          `name:"jwt-issuer" placeholder:"ISS" help:"The issuer of the token (claim iss), if the hub requires one."`
	JWTAudience    []string        `name:"jwt-audience" placeholder:"AUD" help:"The audience of the token (claim aud), if the hub requires one."`
	JWTGroupsClaim flags.ClaimName `name:"jwt-groups-claim" default:"groups" placeholder:"NAME" help:"The claim in which the hub expects the names of the groups (default ${default})."`
	JWTTopicsClaim flags.ClaimName `name:"jwt-topics-claim" default:"topics" placeholder:"NAME" help:"The claim in which the hub expects the topics (default ${default})."`
	GroupMark      auth.GroupMark  `default:":" placeholder:"TEXT" help:"The text that the hub requires in the name of every group and refuses in the id of a user (default ${default})."`
}

// Help is shown by rowcast token --help.
func (tokenCmd) Help() string {
	return "The command prints only the token, so that it can be used as in: rowcast tail --token \"$(rowcast token --sub alice)\". " +
		"With the environment variables of a hub that has a secret, it issues tokens that this hub accepts. In production your app issues the tokens of its logged-in users."
}

// Run prints the token.
func (c *tokenCmd) Run(console console) error {
	claims, err := c.claims()
	if err != nil {
		return usage(err)
	}
	method, key, err := c.signer()
	if err != nil {
		return usage(err)
	}
	text, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	_, err = fmt.Fprintln(console.out, text)
	return err
}

// claims returns the claims of the token. It refuses users, groups and topics that a hub with the same --group-mark
// refuses.
func (c *tokenCmd) claims() (jwt.MapClaims, error) {
	if _, err := c.GroupMark.Grant(c.Sub, c.Group); err != nil {
		return nil, err
	}
	if err := c.GroupMark.CheckTopics(c.Topic); err != nil {
		return nil, err
	}
	now := time.Now()
	claims := jwt.MapClaims{"sub": c.Sub, "iat": now.Unix(), "exp": now.Add(c.Expires).Unix()}
	if len(c.Group) > 0 {
		claims[string(c.JWTGroupsClaim)] = c.Group
	}
	if len(c.Topic) > 0 {
		claims[string(c.JWTTopicsClaim)] = c.Topic
	}
	if c.JWTIssuer != "" {
		claims["iss"] = c.JWTIssuer
	}
	if len(c.JWTAudience) > 0 {
		claims["aud"] = c.JWTAudience
	}
	return claims, nil
}

// signer returns the private key or the first secret, and the algorithm to sign with.
func (c *tokenCmd) signer() (jwt.SigningMethod, any, error) {
	if c.Key != "" {
		return readPrivateKey(c.Key)
	}
	secrets, err := readSecrets(c.JWTSecret, c.JWTSecretFile)
	if err != nil {
		return nil, nil, err
	}
	if len(secrets) == 0 {
		return nil, nil, errors.New("there is no key to sign with: give --jwt-secret (or $ROWCAST_JWT_SECRET), --jwt-secret-file or --jwt-private-key")
	}
	if _, err := auth.Secret(secrets[0]); err != nil {
		return nil, nil, err
	}
	return jwt.SigningMethodHS256, secrets[0], nil
}

// readPrivateKey returns the private key in a file and the algorithm to sign with.
func readPrivateKey(path string) (jwt.SigningMethod, any, error) {
	private, err := parsePrivateKey(path)
	if err != nil {
		return nil, nil, fmt.Errorf("--jwt-private-key: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok || len(auth.Algorithms(signer.Public())) == 0 {
		return nil, nil, fmt.Errorf("--jwt-private-key: %s: %w", path, auth.ErrKeyKind)
	}
	return jwt.GetSigningMethod(auth.Algorithms(signer.Public())[0]), private, nil
}

// parsePrivateKey parses the first key of a PEM file. It skips the blocks before the key, such as a certificate, or the
// parameters of an elliptic curve, which openssl ecparam writes first.
func parsePrivateKey(path string) (private any, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	for block != nil && !strings.HasSuffix(block.Type, "KEY") {
		next, after := pem.Decode(rest)
		if next == nil { // there is no key, and the error below names this block
			break
		}
		block, rest = next, after
	}
	switch {
	case block == nil:
		err = errors.New("the file is not in PEM format: give a file that openssl genpkey has written")
	case strings.HasSuffix(block.Type, "PUBLIC KEY"):
		err = errors.New("this is a public key, which only the hub uses: give the matching private key")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		err = errors.New("the key is encrypted: remove the passphrase with openssl pkey")
	case block.Type == "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("the file contains %q, and no private key in a format that rowcast reads: give a file that openssl genpkey has written", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return private, nil
}
