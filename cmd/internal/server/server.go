// Package server runs a hub: the listener that feeds it, connections for replays, retention and HTTP.
package server

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rowcast/cmd/internal/terminal"
	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/loglimit"
	"rowcast/stream"
	"rowcast/stream/auth"
)

// A Server is a hub with everything that it needs. [New] sets the defaults. The fields must not be changed after Run is called.
type Server struct {
	Listener  listener.Listener  // Run connects it to the hub
	Hub       stream.Hub         // Run connects it to the listener
	Retention listener.Retention // without Keep, no rows are deleted
	Replays   int                // the most connections for replays; the default is DefaultReplays
	Logger    *slog.Logger

	Listen      string   // host:port of the streams
	AdminListen string   // host:port of health, metrics and /disconnect; if empty, the first two are served at Listen
	Origins     []string // origins whose pages may open streams, besides the hub's own
	Trusted     Proxies  // proxies that are believed about the addresses of their clients

	Events    auth.Handler                    // of /events; the default authenticator is InsecureUID
	Guard     func(http.Handler) http.Handler // wraps all handlers at Listen; may be nil
	Routes    func(chi.Router)                // adds routes at Listen; may be nil
	Listening func(net.Addr)                  // is called once, when streams can be opened; may be nil
	Explain   func(error) error               // makes an error of the database readable for people

	NoMessages bool // ignore messages sent by hand with NOTIFY

	// Failures records the failures of /disconnect, of accepting connections and of authentication.
	Failures failures.Record

	lobby  *lobby                                            // idle connections at Listen
	others func(ctx context.Context, recipient string) error // tells all other hubs to disconnect a recipient; set by Run

	httpErrors loglimit.Limit // of log lines of net/http, which clients can cause
	untold     loglimit.Limit // of log lines about other hubs that were not told to disconnect
	panics     loglimit.Limit // of log lines about handlers that panicked
}

// PageBytes is how many bytes a page of rows may have besides one row of any size. It is the listener's default.
const PageBytes = 1 << 20

// New returns a server for a database, with as many streams as the limit of open files allows.
func New(database *pgx.ConnConfig, logger *slog.Logger) *Server {
	s := &Server{Logger: logger, Replays: DefaultReplays(), Explain: func(err error) error { return err }}
	s.Events.Hub, s.Events.Authenticate, s.Events.Logger = &s.Hub, auth.InsecureUID, logger
	_ = s.LimitStreams(0)
	s.Listener.Config, s.Listener.Logger, s.Hub.Logger, s.Retention.Logger = database, logger, logger, logger
	return s
}

// DefaultReplays returns the number of processors, from 2 to 4. With more connections, a crowd of old cursors is served hardly sooner,
// and live streams get less CPU. Several hubs may share a server of PostgreSQL.
func DefaultReplays() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

// Run serves until ctx ends or something fails. HTTP is served from the beginning, also while the database cannot be reached: then
// clients are told to retry later. The end has three steps: the hub ends its streams, while new clients are told to retry later; HTTP
// stops; the listener stops.
func (s *Server) Run(ctx context.Context) error {
	replayer, err := s.Listener.NewReplayer(ctx, s.Replays)
	if err != nil {
		return err
	}
	defer replayer.Close()
	began := s.connect(replayer)
	servers, err := s.open(ctx)
	if err != nil {
		return err
	}

	group, running := errgroup.WithContext(ctx)
	feeding, stopFeeding := context.WithCancel(context.WithoutCancel(ctx))
	group.Go(func() error {
		if err := s.awaitDatabase(running, servers[0].address()); err != nil || running.Err() != nil {
			return err
		}
		if s.Retention.Keep > 0 {
			s.Retention.Listener = &s.Listener
			group.Go(func() error { return s.Retention.Run(running) })
		}
		return s.Listener.Run(feeding)
	})
	for _, server := range servers {
		group.Go(server.run)
	}
	group.Go(func() error {
		s.announce(running, began, servers)
		return nil
	})
	group.Go(func() error {
		defer stopFeeding()
		return errors.Join(s.Hub.Run(running), shutdown(servers))
	})
	return group.Wait()
}

// connect connects the listener to the hub. The returned channel is closed when the hub has received the first batch.
func (s *Server) connect(replayer *listener.Replayer) <-chan struct{} {
	s.Hub.Reads = s.Replays
	s.Hub.Source = replayer
	if !s.NoMessages {
		s.Listener.Message = s.Hub.Send
	}
	s.Listener.Disconnect = func(recipient string) { s.Hub.Disconnect(recipient) }
	s.others = replayer.Disconnect
	began := make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	s.Listener.Deliver = func(b feed.Batch) {
		s.Hub.Publish(b)
		if !b.Warming { // until then, clients are told to retry later
			begin()
		}
	}
	return began
}

// announce logs the addresses as soon as streams can be opened, and later that the server is stopping.
func (s *Server) announce(running context.Context, began <-chan struct{}, servers []*httpServer) {
	select {
	case <-began:
		attributes := []any{"addr", servers[0].address().String()}
		if len(servers) > 1 {
			attributes = append(attributes, "admin_addr", servers[1].address().String())
		}
		s.Logger.Info("listening", attributes...)
		if s.Listening != nil {
			s.Listening(servers[0].address())
		}
		<-running.Done()
	case <-running.Done():
		if !errors.Is(context.Cause(running), context.Canceled) {
			return // Run returns the reason
		}
	}
	s.Logger.Info("stopping", "streams", s.Hub.Stats.Streams.Load())
}

// An httpServer is an HTTP server and its open socket.
type httpServer struct {
	http   http.Server
	socket net.Listener
}

// open opens the sockets. The first one is for streams.
func (s *Server) open(ctx context.Context) ([]*httpServer, error) {
	public, admin := s.routers()
	first, err := s.newServer(ctx, s.Listen, public, s.lobby)
	if err != nil {
		return nil, err
	}
	if s.AdminListen == "" {
		return []*httpServer{first}, nil
	}
	second, err := s.newServer(ctx, s.AdminListen, admin, newLobby(adminLobby))
	if err != nil {
		_ = first.socket.Close()
		return nil, err
	}
	return []*httpServer{first, second}, nil
}

// adminLobby is the number of idle connections at AdminListen.
const adminLobby = 24

func (s *Server) newServer(ctx context.Context, address string, handler http.Handler, lobby *lobby) (*httpServer, error) {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return &httpServer{socket: acceptor{socket, s.Logger, &s.Failures}, http: http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       15 * time.Second, // with the body; a stream's connection is freed of it when it is taken over
		IdleTimeout:       2 * time.Minute,
		// 16 KiB: net/http reads 4 KiB more than it is told. A cursor is up to 4,000 bytes, and cookies come on top. No WriteTimeout: it
		// would end every stream.
		MaxHeaderBytes: 12 << 10,
		ConnState:      lobby.follow,
		ConnContext:    lobby.remember,
		ErrorLog:       log.New(httpLog{s}, "", 0),
	}}, nil
}

// httpLog receives the errors that net/http logs.
type httpLog struct{ *Server }

func (h httpLog) Write(line []byte) (int, error) {
	if logger, ok := h.httpErrors.Allow(h.Logger); ok {
		logger.Warn("an HTTP connection failed", "error", terminal.Printable(string(line)))
	}
	return len(line), nil
}

func (s *httpServer) address() net.Addr { return s.socket.Addr() }

func (s *httpServer) run() error {
	if err := s.http.Serve(s.socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.address(), err)
	}
	return nil
}

// shutdown lets other requests than streams finish, for at most 3 s.
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
