package connstring

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// SetUserTimeout makes the kernel close a connection whose peer has not acknowledged sent data for timeout.
func SetUserTimeout(conn syscall.Conn, timeout time.Duration) error {
	return control(conn, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
	})
}

// checkPeer returns an error unless the server of a Unix socket runs as the user whose name is want.
func checkPeer(conn syscall.Conn, want string) error {
	var peer *unix.Ucred
	err := control(conn, func(fd int) (err error) {
		peer, err = unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		return err
	})
	if err != nil {
		return fmt.Errorf("find the user of the server (requirepeer): %w", err)
	}
	account, err := user.LookupId(strconv.FormatUint(uint64(peer.Uid), 10))
	if err != nil {
		return fmt.Errorf("find the user of the server (requirepeer): %w", err)
	}
	if account.Username != want {
		return fmt.Errorf("requirepeer demands a server of the user %q, and the server runs as %q", want, account.Username)
	}
	return nil
}

func control(conn syscall.Conn, use func(fd int) error) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = use(int(fd)) })
	return errors.Join(err, failed)
}
