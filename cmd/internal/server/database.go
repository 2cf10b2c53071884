package server

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/terminal"
	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/listener/loglimit"
	"rowcast/sql"
)

// The pause between two attempts to reach the database grows from minWait to maxWait. A random factor of 0.5 to 1.5 is
// applied to it.
const (
	minWait = 100 * time.Millisecond
	maxWait = 5 * time.Second
)

// awaitDatabase waits until the database can be reached and is suitable for a hub. It returns nil when it has
// succeeded, and also when ctx ends. If waiting will not help, it returns the error at once. addr is the address of the
// HTTP server, for the log.
func (s *Server) awaitDatabase(ctx context.Context, addr net.Addr) error {
	lines := loglimit.Limit{Every: 30 * time.Second, Burst: 3}
	for pause := minWait; ; pause = min(2*pause, maxWait) {
		err := s.preflight(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the caller has ended ctx
		}
		if !isTemporary(err) {
			return err
		}
		s.Listener.Failures.Failed(failures.Connect, err)
		wait := pause/2 + rand.N(pause)
		if logger, ok := lines.Allow(s.Logger); ok {
			logger.Warn("waiting for PostgreSQL", "listen", addr.String(), "error", terminal.OneLine(s.Explain(err)), "retry_in", wait.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// isTemporary reports whether an error of the first connection may disappear without the operator, because the database
// is still starting, for example. A wrong password, a missing database, schema or inbox, an invalid certificate, a
// standby and a pooler are not temporary. But with several hosts and target_session_attrs, a standby is temporary: during
// a failover or a switchover, one of the hosts becomes the primary.
func isTemporary(err error) bool {
	switch {
	case err == nil, errors.Is(err, listener.ErrPooled), errors.Is(err, listener.ErrStatementPooled), errors.Is(err, listener.ErrStandby),
		errors.Is(err, sql.ErrNoSchema), errors.Is(err, sql.ErrRestored), errors.Is(err, sql.ErrNoInbox):
		return false
	case errors.Is(err, listener.ErrIncomplete):
		return true
	}
	if answered, ok := errors.AsType[*pgconn.PgError](err); ok {
		return isTemporaryCode(answered.Code)
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok { // a net.OpError contains the alert, so it would look like a network error
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	if errors.Is(err, pgconn.ErrReadOnlyConnection) || errors.Is(err, pgconn.ErrStandbyConnection) {
		return isSwitchover(err) // a single host has several errors if its name has several addresses
	}
	return database.NetworkError(err) != nil || pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isSwitchover reports whether the database URL names more hosts than one. err says that a server is a standby or
// read-only.
func isSwitchover(err error) bool {
	failed, ok := errors.AsType[*pgconn.ConnectError](err)
	if !ok {
		return false
	}
	first := failed.Config
	// A host occurs twice if it is tried with and without TLS.
	return slices.ContainsFunc(first.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != first.Host || f.Port != first.Port })
}

// isTemporaryCode reports whether a SQLSTATE means a temporary error
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func isTemporaryCode(code string) bool {
	classes := []string{
		"08", // connection exceptions, including errors of a pooler that cannot reach PostgreSQL
		"53", // insufficient resources, such as too many connections
	}
	codes := []string{
		"57014", // the server canceled a statement, for example because another session locked a table for too long
		"57P01", // the server is being shut down
		"57P02", // another server process crashed
		"57P03", // the server is starting up, shutting down or recovering
	}
	return slices.Contains(codes, code) || slices.ContainsFunc(classes, func(c string) bool { return strings.HasPrefix(code, c) })
}
