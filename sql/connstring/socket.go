package connstring

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// setSockets replaces the DialFunc of config if s has settings of sockets, or requirepeer.
func (s settings) setSockets(config *pgx.ConnConfig) error {
	var numbers [5]int // 0 means the default of the system
	given := false
	for i, keyword := range []string{"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout"} {
		if s[keyword] == "" {
			continue
		}
		n, err := strconv.ParseInt(s[keyword], 10, 32)
		if err != nil {
			return Error(keyword + " is invalid: write a whole number")
		}
		numbers[i], given = int(n), true
	}
	peer := s["requirepeer"]
	if !given && peer == "" {
		return nil
	}
	dialer := net.Dialer{Timeout: config.ConnectTimeout}
	if s["keepalives"] != "" && numbers[0] == 0 {
		dialer.KeepAlive = -1
	} else {
		dialer.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: seconds(numbers[1]), Interval: seconds(numbers[2]), Count: orSystem(numbers[3])}
	}
	timeout := time.Duration(max(0, numbers[4])) * time.Millisecond
	config.DialFunc = dial(dialer, timeout, peer)
	return nil
}

// seconds returns n seconds, for net.KeepAliveConfig. If n is not positive, the duration is negative, which means the
// default of the system. In net.KeepAliveConfig, 0 would mean the default of Go.
func seconds(n int) time.Duration { return time.Duration(orSystem(n)) * time.Second }

// orSystem returns n if it is positive. Otherwise it returns -1, which means the default of the system.
func orSystem(n int) int {
	if n <= 0 {
		return -1
	}
	return n
}

// dial returns a DialFunc. If timeout is not 0, the DialFunc limits how long data that was sent over TCP may be
// unacknowledged. If peer is not empty, the DialFunc refuses a server on a Unix socket, unless the server runs as the
// user peer.
func dial(dialer net.Dialer, timeout time.Duration, peer string) pgconn.DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		switch conn := conn.(type) {
		case *net.TCPConn:
			if timeout > 0 {
				err = SetUserTimeout(conn, timeout)
			}
		case *net.UnixConn:
			if peer != "" {
				err = checkPeer(conn, peer)
			}
		}
		if err != nil {
			_ = conn.Close()
			return nil, err
		}
		return conn, nil
	}
}
