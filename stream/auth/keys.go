package auth

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// A Key verifies tokens. The key, and not the token, decides which algorithms are accepted. If the token decided, an
// attacker could sign a token by HS256 with a public key as the secret, and the token would be valid.
type Key struct {
	algorithms []string
	find       func(context.Context) jwt.Keyfunc
	// reread is a key that reads its set again to find the key that a token names. It is tried only after all other keys,
	// because it may wait. It is nil if the key is constant.
	reread *Key
}

// minSecret is the length of HS256's hash, in bytes (RFC 7518, section 3.2).
const minSecret = 32

// Secret returns a key that verifies tokens signed with a shared secret by HS256. The secret must have 32 bytes or
// more.
func Secret(secret []byte) (Key, error) {
	if len(secret) < minSecret {
		return Key{}, fmt.Errorf("the secret is too short: it has %d bytes and needs at least %d, because a short secret can be guessed; openssl rand -hex 32 generates a good one",
			len(secret), minSecret)
	}
	return Key{algorithms: []string{"HS256"}, find: findConstant(secret)}, nil
}

// findConstant returns a value for Key.find that finds the same key for every token, whatever kid the token names.
func findConstant(value any) func(context.Context) jwt.Keyfunc {
	return func(context.Context) jwt.Keyfunc {
		return func(*jwt.Token) (any, error) { return value, nil }
	}
}

// PublicKeys reads public keys from PEM. It returns an error if there is no key, or if a PEM block cannot be read or is
// not a supported public key.
func PublicKeys(text []byte) (keys []Key, err error) {
	blocks := bytes.Count(text, []byte("-----BEGIN "))
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		public, err := parsePublicKey(block)
		if err != nil {
			return nil, err
		}
		keys = append(keys, Key{algorithms: Algorithms(public), find: findConstant(public)})
	}
	switch {
	case len(keys) < blocks: // package pem skips blocks that are damaged
		return nil, fmt.Errorf("only %d of %d PEM blocks can be read: put each BEGIN line and each END line on a line of its own, with the whole key between them", len(keys), blocks)
	case len(keys) == 0:
		return nil, errors.New("no public key in PEM format (openssl pkey -pubout writes one)")
	}
	return keys, nil
}

func parsePublicKey(block *pem.Block) (public crypto.PublicKey, err error) {
	switch {
	case block.Type == "PUBLIC KEY":
		public, err = x509.ParsePKIXPublicKey(block.Bytes)
	case block.Type == "RSA PUBLIC KEY":
		public, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("this is a private key, which only the app that signs tokens may have: use the public key (openssl pkey -pubout)")
	default:
		return nil, fmt.Errorf("%q is not a public key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	if len(Algorithms(public)) == 0 {
		return nil, ErrKeyKind
	}
	return public, nil
}

// ErrKeyKind reports a key that is not supported.
var ErrKeyKind = errors.New("the key is not supported: use RSA with 2048 to 16384 bits, ECDSA on P-256, P-384 or P-521, or Ed25519")

// publicAlgorithms are the algorithms of all supported public keys.
var publicAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// Algorithms returns the algorithms of the tokens that a public key may verify. It returns nil if the key is not
// supported. The time that an RSA key takes to verify a token grows with the square of its length, so very long keys are
// not supported.
func Algorithms(public crypto.PublicKey) []string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if bits := k.N.BitLen(); bits >= 2048 && bits <= 16384 {
			return publicAlgorithms[:6]
		}
	case *ecdsa.PublicKey:
		if at := slices.Index([]int{256, 384, 521}, k.Curve.Params().BitSize); at >= 0 {
			return publicAlgorithms[6+at : 7+at]
		}
	case ed25519.PublicKey:
		return publicAlgorithms[9:]
	}
	return nil
}
