package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/sql"
)

// Network errors are temporary. Errors that only the operator can correct are not.
func TestIsTemporary(t *testing.T) {
	t.Parallel()
	connecting := func(err error) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", err)}
	}
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{connecting(syscall.EHOSTUNREACH), true},
		{connecting(syscall.ENETUNREACH), true},
		{connecting(syscall.ETIMEDOUT), true},
		{connecting(syscall.ECONNREFUSED), true},
		{connecting(syscall.ENOENT), true}, // the socket of a server that has not started
		{&net.DNSError{Err: "no such host", Name: "db", IsNotFound: true}, true},
		{&net.DNSError{Err: "server misbehaving", Name: "db", IsTemporary: true}, true},
		{context.DeadlineExceeded, true},
		{io.ErrUnexpectedEOF, true},
		{&net.OpError{Op: "remote error", Err: tls.AlertError(42)}, false}, // a bad certificate
		{&tls.CertificateVerificationError{}, false},
		{listener.ErrPooled, false},
		{listener.ErrStatementPooled, false},
		{listener.ErrStandby, false},
		{pgconn.ErrReadOnlyConnection, false},
		{pgconn.ErrStandbyConnection, false},
		// A single host has two addresses, and its server listens only on the second one. TestServeStartsDuringAFailover has
		// two hosts.
		{errors.Join(connecting(syscall.ECONNREFUSED), pgconn.ErrReadOnlyConnection), false},
		{errors.Join(connecting(syscall.ECONNREFUSED), pgconn.ErrStandbyConnection), false},
		{errors.Join(&pgconn.PgError{Code: "57P03"}, pgconn.ErrReadOnlyConnection), true},
		{errors.Join(&pgconn.PgError{Code: "28P01"}, pgconn.ErrReadOnlyConnection), false},
		{sql.ErrNoSchema, false},
	} {
		for _, err := range []error{tt.err, fmt.Errorf("connect: %w", tt.err)} {
			if isTemporary(err) != tt.want {
				t.Errorf("the error %v (%T): is temporary: %v, want %v", tt.err, tt.err, !tt.want, tt.want)
			}
		}
	}
}
