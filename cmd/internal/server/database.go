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

// The pauses between two attempts to reach a database that is not there yet.
const (
	minWait = 100 * time.Millisecond
	maxWait = 5 * time.Second
)

// awaitDatabase returns when the database is there and fit for a hub, or when ctx ends, or with an error that waiting does not mend.
// addr is where HTTP is served meanwhile.
func (s *Server) awaitDatabase(ctx context.Context, addr net.Addr) error {
	lines := loglimit.Limit{Every: 30 * time.Second, Burst: 3}
	for pause := minWait; ; pause = min(2*pause, maxWait) {
		err := s.Listener.Preflight(ctx)
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end that was asked for
		}
		if !willPass(err) {
			return err
		}
		s.Listener.Failures.Failed(failures.Connect, err)
		wait := pause/2 + rand.N(pause)
		if logger, ok := lines.Allow(s.Logger); ok {
			logger.Warn("waiting for PostgreSQL", "addr", addr.String(), "error", terminal.OneLine(s.Explain(err)), "retry_in", wait.Round(time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// willPass reports whether an error of the first connection is one of a database that is not there yet. All others need somebody who
// mends something: a wrong password, a missing database or schema, a certificate, a standby, a pooler.
func willPass(err error) bool {
	switch {
	case err == nil, errors.Is(err, listener.ErrPooled), errors.Is(err, listener.ErrStandby),
		errors.Is(err, sql.ErrNoSchema), errors.Is(err, sql.ErrRestored), errors.Is(err, pgconn.ErrReadOnlyConnection):
		return false
	}
	if said, ok := errors.AsType[*pgconn.PgError](err); ok {
		return isPassing(said.Code)
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok { // which is in a net.OpError
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	return database.NetworkError(err) != nil || pgconn.Timeout(err) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// isPassing reports whether a server that answers with this SQLSTATE may soon answer otherwise
// (https://www.postgresql.org/docs/current/errcodes-appendix.html).
func isPassing(code string) bool {
	class := []string{
		"08", // connection exceptions; also a pooler's, whose server is away
		"53", // insufficient resources, such as too many connections
	}
	codes := []string{
		"57P01", // the server is being shut down
		"57P02", // another server process crashed
		"57P03", // the server is starting up, shutting down or recovering
	}
	return slices.Contains(codes, code) || slices.ContainsFunc(class, func(c string) bool { return strings.HasPrefix(code, c) })
}
