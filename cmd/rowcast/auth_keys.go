package main

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
	"os"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// A key verifies tokens of its own algorithms: which, the key says, and never the token. Else a token signed by HS256 with the
// public key, which everybody has, would be valid.
type key struct {
	algorithms []string
	find       func(context.Context) jwt.Keyfunc
}

// minSecret is the length of HS256's hash, in bytes (RFC 7518, section 3.2).
const minSecret = 32

func secretKey(secret []byte) (key, error) {
	if len(secret) < minSecret {
		return key{}, fmt.Errorf("it has %d bytes, and needs %d at least: anybody could guess it (openssl rand -hex 32 makes one)", len(secret), minSecret)
	}
	return key{[]string{"HS256"}, always(secret)}, nil
}

// always finds the same key, whatever the token says of keys: its kid names nothing here.
func always(value any) func(context.Context) jwt.Keyfunc {
	return func(context.Context) jwt.Keyfunc {
		return func(*jwt.Token) (any, error) { return value, nil }
	}
}

// readSecret reads a file with a secret and perhaps a line break after it.
func readSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	return bytes.TrimRight(text, "\r\n"), err
}

// readPublicKeys reads a file of public keys in PEM.
func readPublicKeys(path string) (keys []key, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		public, err := parsePublicKey(block)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		keys = append(keys, key{algorithmsOf(public), always(public)})
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("%s: no public key in PEM, such as openssl pkey -pubout writes", path)
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
		return nil, errors.New("this is a private key, which only the app that signs may have: give the public one (openssl pkey -pubout)")
	default:
		return nil, fmt.Errorf("%q is not a public key", block.Type)
	}
	if err != nil {
		return nil, err
	}
	if len(algorithmsOf(public)) == 0 {
		return nil, errKind
	}
	return public, nil
}

var errKind = errors.New("it is none of RSA with 2048 bits or more, ECDSA on P-256, P-384 or P-521, and Ed25519")

// publicAlgorithms are those of all public keys.
var publicAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// algorithmsOf are those that a public key may verify; none, if it is not to be used.
func algorithmsOf(public any) []string {
	switch k := public.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() >= 2048 {
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
