package connstring_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// An authority signs the certificate of a server, and lists of revoked certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{certificate, key}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// serialOfServer is the serial number of the certificate of a server.
const serialOfServer = 7

// revoke writes a list of revoked certificates that is valid until next, and returns the path of its file.
func (a authority) revoke(t *testing.T, next time.Time, serials ...int64) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: next}
	for _, serial := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries,
			x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: time.Date(2026, 5, 4, 3, 0, 0, 0, time.UTC)})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.certificate, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, filepath.Join(t.TempDir(), "list"), "X509 CRL", der)
}

// write writes a file in PEM format, and returns its path. The owner of the directory becomes the owner of the file.
func write(t *testing.T, file, kind string, der []byte) string {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Stat(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	uid, gid := dbtest.Owner(dir)
	if err := os.Chown(file, uid, gid); err != nil {
		t.Fatal(err)
	}
	return file
}

// tlsServer starts a server with TLS up to TLSv1.2. It returns a connection string and the authority of the server.
func tlsServer(t *testing.T) (s string, by authority) {
	t.Helper()
	server := dbtest.Cluster(t)
	by = newAuthority(t)
	key := newKey(t)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(serialOfServer), Subject: pkix.Name{CommonName: "server"}, NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"db.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, by.certificate, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(server.Dir, "data", "server.crt"), "CERTIFICATE", der)
	write(t, filepath.Join(server.Dir, "data", "server.key"), "PRIVATE KEY", private)
	s = strings.Replace(dbtest.TCP(t, server, "postgres"), "sslmode=disable", "sslmode=verify-full", 1)
	conn := connect(t, server.DSN("postgres"))
	for _, setting := range []string{"ssl = on", "ssl_max_protocol_version = 'TLSv1.2'"} {
		if _, err := conn.Exec(t.Context(), "ALTER SYSTEM SET "+setting); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.Restart(dbtest.Context(t), cluster.Fast); err != nil {
		t.Fatal(err)
	}
	return s + "&sslrootcert=" + write(t, filepath.Join(t.TempDir(), "ca.crt"), "CERTIFICATE", by.certificate.Raw), by
}

// A server is refused if its certificate is revoked, or if its authority has no current list. That holds for every
// sslmode that verifies the certificate. With sslmode=prefer, the lists are refused.
func TestRevokedCertificate(t *testing.T) {
	t.Parallel()
	s, by := tlsServer(t)
	future := time.Now().Add(time.Hour)
	good, revoked := by.revoke(t, future, 8), by.revoke(t, future, 8, serialOfServer)
	expired := by.revoke(t, time.Now().Add(-time.Hour))
	stranger := newAuthority(t).revoke(t, future) // the list of another authority with the same name
	const isRevoked = `the certificate of "CN=server" was revoked on 2026-05-04 (sslcrl, sslcrldir)`
	const isUnknown = `sslcrl and sslcrldir have no current list of the certificates that "CN=authority" has revoked`
	for _, mode := range []string{"verify-full", "verify-ca", "require"} {
		s := strings.Replace(s, "verify-full", mode, 1)
		for params, want := range map[string]string{
			"": "", "&sslcrl=" + good: "", "&sslcrl=" + revoked: isRevoked, "&sslcrldir=" + filepath.Dir(revoked): isRevoked,
			"&sslcrl=" + good + "&sslcrldir=" + filepath.Dir(revoked): isRevoked,
			"&sslcrl=" + expired: isUnknown, "&sslcrl=" + stranger: isUnknown,
			"&sslcrl=/nowhere":          "cannot be read",
			"&sslcrldir=" + t.TempDir(): "sslcrl and sslcrldir contain no usable list of revoked certificates: a list must be in PEM format, and apply to all certificates of its authority",
		} {
			_, err := tryConnect(t, s+params)
			if want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
				t.Errorf("sslmode=%s%s: got error %v, want %q", mode, params, err, want)
			}
		}
	}
	_, err := tryConnect(t, strings.Replace(s, "verify-full", "prefer", 1)+"&sslcrl="+good)
	if want := "sslcrl and sslcrldir need a verified certificate"; !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("sslmode=prefer: got error %v, want %q", err, want)
	}
}

// The server at hostaddr must have a certificate for host. The settings of the TLS versions are obeyed, too: the server
// supports nothing newer than TLSv1.2.
func TestTLSOfHostaddr(t *testing.T) {
	t.Parallel()
	s, _ := tlsServer(t)
	for params, want := range map[string]string{
		"&host=db.example&hostaddr=127.0.0.1":                                "",
		"&host=other.example&hostaddr=127.0.0.1":                             "certificate is valid for db.example, not other.example",
		"&ssl_min_protocol_version=TLSv1.2":                                  "",
		"&ssl_min_protocol_version=TLSv1.3":                                  "protocol version",
		"&ssl_min_protocol_version=TLSv1.2&ssl_max_protocol_version=tlsv1.2": "",
		"&ssl_min_protocol_version=TLSv1&ssl_max_protocol_version=TLSv1.1":   "protocol version",
	} {
		conn, err := tryConnect(t, s+params)
		if want == "" && err != nil || want != "" && !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%s: got error %v, want %q", params, err, want)
		}
		if err == nil && conn.PgConn().Conn().(*tls.Conn).ConnectionState().Version != tls.VersionTLS12 {
			t.Errorf("%s: the connection does not use TLS 1.2, the newest version that the server supports", params)
		}
	}
}
