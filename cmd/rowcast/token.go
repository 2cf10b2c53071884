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

	"rowcast/stream/auth"
)

type tokenCmd struct {
	tokenFlags
	Sub         string        `required:"" placeholder:"USER" help:"Who listens: the user's id."`
	Group       []string      `sep:"none" placeholder:"GROUP" help:"The key of a group that he listens to as well, such as team:7. Give it once for each."`
	Expires     time.Duration `default:"1h" min:"1s" max:"3650d" placeholder:"TIME" help:"After how long the token no longer counts (default ${default})."`
	Key         string        `name:"jwt-private-key" placeholder:"FILE" help:"Sign with this private key, in PEM, and not with a secret, even if one is set; of several secrets, the first signs."`
	JWTIssuer   string        `name:"jwt-issuer" placeholder:"ISS" help:"The token's iss, if the hub wants one."`
	JWTAudience []string      `name:"jwt-audience" placeholder:"AUD" help:"Its aud, likewise."`
}

// Help is shown by rowcast token --help.
func (tokenCmd) Help() string {
	return "The token is the only thing on stdout: rowcast tail --token \"$(rowcast token --sub alice)\". " +
		"With the variables that the hub has, it makes what that hub takes. In earnest your app makes the tokens, where it knows who is logged in."
}

// Run prints the token.
func (c *tokenCmd) Run(console console) error {
	claims, err := c.claims()
	if err != nil {
		return err
	}
	method, key, err := c.signer()
	if err != nil {
		return err
	}
	text, err := jwt.NewWithClaims(method, claims).SignedString(key)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	_, err = fmt.Fprintln(console.out, text)
	return err
}

// claims refuses what no hub would take.
func (c *tokenCmd) claims() (jwt.MapClaims, error) {
	if _, err := c.GroupMark.Grant(c.Sub, c.Group); err != nil {
		return nil, err
	}
	now := time.Now()
	claims := jwt.MapClaims{"sub": c.Sub, "iat": now.Unix(), "exp": now.Add(c.Expires).Unix()}
	if len(c.Group) > 0 {
		claims[string(c.JWTGroupsClaim)] = c.Group
	}
	if c.JWTIssuer != "" {
		claims["iss"] = c.JWTIssuer
	}
	if len(c.JWTAudience) > 0 {
		claims["aud"] = c.JWTAudience
	}
	return claims, nil
}

// signer is the private key or the first secret.
func (c *tokenCmd) signer() (jwt.SigningMethod, any, error) {
	if c.Key != "" {
		return readPrivateKey(c.Key)
	}
	secrets, err := c.secrets()
	if err != nil {
		return nil, nil, err
	}
	if len(secrets) == 0 {
		return nil, nil, errors.New("nothing to sign with: give --jwt-secret, --jwt-secret-file or --jwt-private-key")
	}
	if _, err := auth.Secret(secrets[0]); err != nil {
		return nil, nil, err
	}
	return jwt.SigningMethodHS256, secrets[0], nil
}

// readPrivateKey reads a key, and finds the algorithm that goes with it.
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

// parsePrivateKey takes the first key of a file in PEM; openssl ecparam writes the name of the curve before it.
func parsePrivateKey(path string) (private any, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, text := pem.Decode(text)
	if block != nil && block.Type == "EC PARAMETERS" {
		block, _ = pem.Decode(text)
	}
	switch {
	case block == nil:
		err = errors.New("this is not PEM, such as openssl genpkey writes")
	case strings.HasSuffix(block.Type, "PUBLIC KEY"):
		err = errors.New("this is a public key, which is the hub's: give the private one that belongs to it")
	case block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "":
		err = errors.New("the key is encrypted: give it without a passphrase (openssl pkey)")
	case block.Type == "PRIVATE KEY":
		private, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		private, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		private, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		err = fmt.Errorf("%q is not a private key such as openssl genpkey writes", block.Type)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return private, nil
}
