package listener_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// After the password of a hub was changed, the hub can connect again, because Configure reads the password file for
// each new connection. That includes the connections for replays.
func TestPasswordIsReadAnew(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := loginRole(t, dsn, "first")
	file := filepath.Join(t.TempDir(), "pgpass")
	write(t, file, "*:*:*:*:first")
	rotate(t, conn, role, overTCP(t, dsn, role)+" passfile="+file, func() {
		exec(t, conn, "ALTER ROLE "+role+" PASSWORD 'second'")
		write(t, file, "*:*:*:*:second")
	})
}

// After the certificates of the hub and of the server were replaced by certificates of a new authority, the hub can
// connect again.
func TestCertificatesAreReadAnew(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, dsn)
	exec(t, conn, "CREATE ROLE certified LOGIN")
	for _, grant := range hubGrants {
		exec(t, conn, "GRANT "+grant+" TO certified")
	}
	theirs, ours := filepath.Join(server.Dir, "data"), t.TempDir()
	certify(t, theirs, ours)
	hba := filepath.Join(theirs, "pg_hba.conf")
	rules, err := os.ReadFile(hba)
	if err != nil {
		t.Fatal(err)
	}
	write(t, hba, "hostssl all certified 127.0.0.1/32 cert\n"+string(rules))
	for _, setting := range []string{"ssl = on", "ssl_cert_file = 'theirs.crt'", "ssl_key_file = 'theirs.key'", "ssl_ca_file = 'ca.crt'"} {
		exec(t, conn, "ALTER SYSTEM SET "+setting)
	}
	_ = conn.Close(t.Context())
	if err := server.Restart(limited(t), cluster.Fast); err != nil {
		t.Fatal(err)
	}
	conn = connect(t, dsn)
	ssl := fmt.Sprintf("host=127.0.0.1 port=%d dbname=postgres user=certified sslmode=verify-full", conn.Config().Port)
	for key, file := range map[string]string{"sslrootcert": "ca.crt", "sslcert": "ours.crt", "sslkey": "ours.key"} {
		ssl += fmt.Sprintf(" %s=%s", key, filepath.Join(ours, file))
	}
	rotate(t, conn, "certified", ssl, func() {
		certify(t, theirs, ours)
		exec(t, conn, "SELECT pg_reload_conf()")
		holdsSoon(t, "the new certificate of the server", func() bool {
			fresh, err := pgx.Connect(limited(t), ssl)
			if err == nil {
				_ = fresh.Close(t.Context())
			}
			return err == nil
		})
	})
}

// rotate runs a listener with a Configure, and a replayer. Both connect as role. Then rotate calls change, which
// changes the credentials of the role. After that, rotate ends the role's sessions. The listener and the replayer must
// continue.
func rotate(t *testing.T, conn *pgx.Conn, role, dsn string, change func()) {
	t.Helper()
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Config = nil
		l.Configure = func() (*pgx.ConnConfig, error) { return pgx.ParseConfig(dsn) }
	})
	r.waitForLock(t, 1)
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	begin := r.last.Cursor
	if _, err := replayer.IsValid(limited(t), begin, begin); err != nil {
		t.Fatalf("IsValid before the change: %v", err)
	}
	change()
	const terminate = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1"
	if got := one[int64](t, conn, terminate, role); got < 3 {
		t.Errorf("%d sessions were ended, want at least 3", got)
	}
	insert(t, conn, "after the change")
	wantData(t, r.rows(t, 1), `"after the change"`)
	r.waitForLock(t, 2)
	holdsSoon(t, "a replay's connection", func() bool {
		_, err := replayer.IsValid(limited(t), begin, begin) // the first call may use the session that was ended
		return err == nil
	})
}

// overTCP returns a connection string for a role over TCP. Over TCP, the server requires a password. Over the Unix
// socket, it requires none.
func overTCP(t *testing.T, dsn, role string) string {
	t.Helper()
	config := connect(t, dsn).Config()
	return fmt.Sprintf("host=127.0.0.1 port=%d dbname=%s user=%s sslmode=disable", config.Port, config.Database, role)
}

// loginRole creates a role for a hub that logs in with a password.
func loginRole(t *testing.T, dsn, password string) string {
	t.Helper()
	role := createRole(t, dsn, "hub", hubGrants...)
	exec(t, connect(t, dsn), "ALTER ROLE "+role+" LOGIN PASSWORD '"+password+"'")
	return role
}

// certify creates an authority, which signs a certificate for the server and a certificate for the role "certified". It
// writes the files of the server to the directory theirs, and the files of the role to the directory ours. Existing
// files are replaced.
func certify(t *testing.T, theirs, ours string) {
	t.Helper()
	authority := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key := newKey(t)
	ca := sign(t, authority, authority, key, key)
	for dir, leaf := range map[string]*x509.Certificate{
		theirs: {Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		ours:   {Subject: pkix.Name{CommonName: "certified"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
	} {
		name := map[string]string{theirs: "theirs", ours: "ours"}[dir]
		leaf.SerialNumber, leaf.NotAfter = serial(t), time.Now().Add(time.Hour)
		own := newKey(t)
		private, err := x509.MarshalPKCS8PrivateKey(own)
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name+".crt"), block("CERTIFICATE", sign(t, leaf, authority, own, key)))
		write(t, filepath.Join(dir, name+".key"), block("PRIVATE KEY", private))
		write(t, filepath.Join(dir, "ca.crt"), block("CERTIFICATE", ca))
	}
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func sign(t *testing.T, certificate, by *x509.Certificate, own, key *ecdsa.PrivateKey) []byte {
	t.Helper()
	signed, err := x509.CreateCertificate(rand.Reader, certificate, by, &own.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func block(kind string, bytes []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: bytes}))
}

// write replaces a file, which only its owner can read. The owner of the directory becomes the owner of the file,
// because the server may run as another user than the test.
func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
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
}
