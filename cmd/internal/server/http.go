package server

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"time"

	"rowcast/cmd/internal/terminal"
	"rowcast/listener/failures"
	"rowcast/stream/wire"
)

// An httpServer is an HTTP server with its listening socket.
type httpServer struct {
	http   http.Server
	socket net.Listener
}

// open opens the listening sockets. The first returned server is for streams.
func (s *Server) open(ctx context.Context) ([]*httpServer, error) {
	public, admin := s.routers()
	first, err := s.newServer(ctx, s.Listen, public, s.idle)
	if err != nil {
		return nil, cannotListen(err, "--listen")
	}
	if s.AdminListen == "" {
		return []*httpServer{first}, nil
	}
	second, err := s.newServer(ctx, s.AdminListen, admin, newIdleConns(adminIdleConns))
	if err != nil {
		_ = first.socket.Close()
		return nil, cannotListen(err, "--admin-listen")
	}
	return []*httpServer{first, second}, nil
}

func cannotListen(err error, flag string) error {
	return fmt.Errorf("cannot listen: %w: choose another address with %s", err, flag)
}

// adminIdleConns is the maximum number of connections at AdminListen.
const adminIdleConns = 24

// idleTimeout is the time after which an idle connection is closed. Load balancers keep connections for up to 10 minutes
// (Google Cloud). A request on a connection that was closed meanwhile would fail, and the load balancer would answer 502.
const idleTimeout = 11 * time.Minute

func (s *Server) newServer(ctx context.Context, address string, handler http.Handler, idle *idleConns) (*httpServer, error) {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &httpServer{socket: acceptor{socket, s.Logger, &s.Failures}, http: http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second, // for the header and the body; the hub removes this limit from streams
		IdleTimeout:       idleTimeout,
		// WriteTimeout is not set: limitTime limits the time of an answer.

		// net/http adds 4 KiB to this limit, so the header of a request may have 16 KiB. A cursor with 1,000
		// transactions in flight can have more than 5,000 bytes, and cookies need space too.
		MaxHeaderBytes: 12 << 10,
		ConnState:      idle.track,
		ConnContext:    idle.withConn,
		ErrorLog:       log.New(httpLog{s}, "", 0),

		// net/http would answer OPTIONS * itself, without the middlewares limitTime and AsLocalhost.
		DisableGeneralOptionsHandler: true,
	}}, nil
}

func (s *httpServer) address() net.Addr { return s.socket.Addr() }

func (s *httpServer) run() error {
	if err := s.http.Serve(s.socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.address(), err)
	}
	return nil
}

// shutdown waits up to 3 s for requests that are being answered, and then closes their connections. The streams have
// already ended.
func shutdown(servers []*httpServer) error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	var errs error
	for _, server := range servers {
		err := server.http.Shutdown(ctx)
		if errors.Is(err, context.DeadlineExceeded) {
			err = server.http.Close()
		}
		errs = errors.Join(errs, err)
	}
	return errs
}

// An acceptor is a listening socket that limits the unsent bytes of its connections, and records failures to accept
// connections. After a temporary failure, net/http tries again after a pause.
type acceptor struct {
	net.Listener
	logger   *slog.Logger
	failures *failures.Record
}

// Accept returns the next connection.
func (a acceptor) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	switch {
	case err == nil:
		wire.LimitUnsent(conn)
		a.failures.Succeeded(failures.Accept)
	case !errors.Is(err, net.ErrClosed):
		a.failures.Warn(a.logger, failures.Accept, err, "cannot accept connections")
	}
	return conn, err
}

// httpLog logs the errors that net/http reports, at a limited rate.
type httpLog struct{ *Server }

func (h httpLog) Write(line []byte) (int, error) {
	if logger, ok := h.httpErrors.Allow(h.Logger); ok {
		logger.Warn("an HTTP connection failed", "error", terminal.Printable(string(line)))
	}
	return len(line), nil
}
