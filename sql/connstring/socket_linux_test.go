package connstring_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rowcast/sql/dbtest"
)

// The keywords of keep-alives and tcp_user_timeout set options of the socket.
func TestKeepalives(t *testing.T) {
	t.Parallel()
	s := dbtest.TCP(t, dbtest.Cluster(t), "postgres")
	for params, want := range map[string]string{
		"&keepalives_idle=77&keepalives_interval=11&keepalives_count=4&tcp_user_timeout=9000": "on 77 11 4 9000",
		"&keepalives=1&keepalives_idle=77&keepalives_interval=11&keepalives_count=4":          "on 77 11 4 0",
		"&keepalives=0&keepalives_idle=77&tcp_user_timeout=-1":                                "off",
		"&keepalives_idle=0": "on " + system(t),
	} {
		conn := connect(t, s+params).PgConn().Conn().(*net.TCPConn)
		got := "off"
		if option(t, conn, unix.SOL_SOCKET, unix.SO_KEEPALIVE) != 0 {
			got = "on"
			for _, name := range []int{unix.TCP_KEEPIDLE, unix.TCP_KEEPINTVL, unix.TCP_KEEPCNT, unix.TCP_USER_TIMEOUT} {
				got += fmt.Sprint(" ", option(t, conn, unix.IPPROTO_TCP, name))
			}
		}
		if got != want {
			t.Errorf("%s: got %s, want %s", params, got, want)
		}
	}
}

// system returns the system's defaults for keep-alives, and then 0 for the user timeout.
func system(t *testing.T) string {
	t.Helper()
	var all []string
	for _, name := range []string{"time", "intvl", "probes"} {
		text, err := os.ReadFile("/proc/sys/net/ipv4/tcp_keepalive_" + name)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.TrimSpace(string(text)))
	}
	return strings.Join(all, " ") + " 0"
}

func option(t *testing.T, conn *net.TCPConn, level, name int) (value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) }), err)
	}
	if err != nil {
		t.Fatalf("cannot read an option of a socket: %v", err)
	}
	return value
}

// requirepeer refuses a server of another user on a Unix socket. It has no effect over TCP.
func TestRequirepeer(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	info, err := os.Stat(filepath.Join(server.Dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := dbtest.Owner(info)
	owner, err := user.LookupId(strconv.Itoa(uid))
	if err != nil {
		t.Fatal(err)
	}
	connect(t, server.DSN("postgres")+"&requirepeer="+owner.Username)
	connect(t, dbtest.TCP(t, server, "postgres")+"&requirepeer=mallory")
	_, err = tryConnect(t, server.DSN("postgres")+"&requirepeer=mallory")
	if want := `requirepeer demands a server of the user "mallory", and the server runs as "` + owner.Username + `"`; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got error %v, want %q", err, want)
	}
}
