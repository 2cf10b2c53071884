package main

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

	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/listener/loglimit"
	"rowcast/stream"
	"rowcast/stream/auth"
)

// A service is a hub with all that it takes to run one: the listener that feeds it, connections for replays, and HTTP. The
// fields are set before run, and not changed after.
type service struct {
	listener  listener.Listener  // its tuning; what connects it with the hub is set by run
	hub       stream.Hub         // likewise
	retention listener.Retention // likewise; without Keep, nothing is deleted
	replays   int                // connections at most for replays; default defaultReplays
	logger    *slog.Logger

	listen      string   // host:port of the streams
	adminListen string   // host:port of health and metrics; empty: with the streams
	origins     []string // whose pages may open streams, besides the hub's own
	trusted     proxies  // that say who their client is
	lobby       *lobby   // of listen

	events     auth.Handler   // of /events; authenticates by InsecureUID unless set
	httpErrors loglimit.Limit // of the log lines of net/http, which clients can cause
	untold     loglimit.Limit // of the log lines about other hubs that were not told to disconnect
	panics     loglimit.Limit // of the log lines about handlers that panicked

	guard     func(http.Handler) http.Handler // around everything at listen; nil: nothing
	routes    func(chi.Router)                // more to serve there; nil: nothing
	listening func(net.Addr)                  // told once where, when streams can be opened; nil: nobody
	explain   func(error) error               // makes an error of the database one for people

	noMessages bool // by hand, with NOTIFY

	failures failures.Record                                   // of disconnect, accept, and of what says who a client is
	others   func(ctx context.Context, recipient string) error // tells all other hubs to disconnect; set by run
}

func newService(database *pgx.ConnConfig, logger *slog.Logger) *service {
	s := &service{logger: logger, replays: defaultReplays(), explain: func(err error) error { return err }}
	s.events.Hub, s.events.Authenticate, s.events.Logger = &s.hub, auth.InsecureUID, logger
	shares, _ := shareOut(descriptors(), 0, s.replays)
	s.hub.Limits.Streams, s.lobby = shares.streams, newLobby(shares.lobby)
	s.listener.Config, s.listener.Logger, s.hub.Logger, s.retention.Logger = database, logger, logger, logger
	return s
}

// defaultReplays is as many as there are processors: more serve a crowd of old cursors little sooner, and take the processors from
// those who are live. It is two at least, as one may be retention's, and four at most, as many hubs may share a server.
func defaultReplays() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

// run serves until ctx ends, or until something fails. HTTP is served from the beginning, also while the database is not there yet:
// then clients are told to come back later. The end goes against the stream: the hub ends its streams while it still accepts
// requests, and tells the newcomers to come back later; then HTTP ends; the listener last.
func (s *service) run(ctx context.Context) error {
	replayer, err := s.listener.NewReplayer(ctx, s.replays)
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
		if s.retention.Keep > 0 {
			s.retention.Listener = &s.listener
			group.Go(func() error { return s.retention.Run(running) })
		}
		return s.listener.Run(feeding)
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
		return errors.Join(s.hub.Run(running), shutdown(servers))
	})
	return group.Wait()
}

// connect puts the hub behind the listener. What it returns is closed when the first batch has come.
func (s *service) connect(replayer *listener.Replayer) <-chan struct{} {
	s.hub.Reads = s.replays
	s.hub.Source = bridge{&s.listener, replayer}
	if !s.noMessages {
		s.listener.Message = func(m listener.Message) { s.hub.Send(message(m)) }
	}
	s.listener.Disconnect = func(recipient string) { s.hub.Disconnect(recipient) }
	s.others = replayer.Disconnect
	began := make(chan struct{})
	begin := sync.OnceFunc(func() { close(began) })
	s.listener.Deliver = func(b listener.Batch) {
		s.hub.Publish(batch(b))
		if !b.Warming { // before that, clients are told to come back later
			begin()
		}
	}
	return began
}

// announce says where the service is once a client that comes at once gets a stream, and later that it is about to end.
func (s *service) announce(running context.Context, began <-chan struct{}, servers []*server) {
	select {
	case <-began:
		attributes := []any{"addr", servers[0].address().String()}
		if len(servers) > 1 {
			attributes = append(attributes, "admin_addr", servers[1].address().String())
		}
		s.logger.Info("listening", attributes...)
		if s.listening != nil {
			s.listening(servers[0].address())
		}
		<-running.Done()
	case <-running.Done():
		if !errors.Is(context.Cause(running), context.Canceled) {
			return // it did not begin, for the reason that run returns
		}
	}
	s.logger.Info("stopping", "streams", s.hub.Stats.Streams.Load())
}

// A server is an HTTP server and its open socket.
type server struct {
	http   http.Server
	socket net.Listener
}

// open opens the sockets: the one of the streams first.
func (s *service) open(ctx context.Context) ([]*server, error) {
	public, admin := s.routers()
	first, err := s.newServer(ctx, s.listen, public, s.lobby)
	if err != nil {
		return nil, err
	}
	if s.adminListen == "" {
		return []*server{first}, nil
	}
	second, err := s.newServer(ctx, s.adminListen, admin, newLobby(adminLobby))
	if err != nil {
		_ = first.socket.Close()
		return nil, err
	}
	return []*server{first, second}, nil
}

// adminLobby is enough for those who watch over a hub.
const adminLobby = 24

func (s *service) newServer(ctx context.Context, address string, handler http.Handler, lobby *lobby) (*server, error) {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("cannot listen: %w", err)
	}
	return &server{socket: acceptor{socket, s.logger, &s.failures}, http: http.Server{
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

// httpLog is where net/http writes what went wrong with connections and requests.
type httpLog struct{ *service }

func (h httpLog) Write(line []byte) (int, error) {
	if logger, ok := h.httpErrors.Allow(h.logger); ok {
		logger.Warn("an HTTP connection failed", "error", printable(string(line)))
	}
	return len(line), nil
}

func (s *server) address() net.Addr { return s.socket.Addr() }

func (s *server) run() error {
	if err := s.http.Serve(s.socket); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", s.address(), err)
	}
	return nil
}

// shutdown lets requests that are no streams finish, for a while.
func shutdown(servers []*server) error {
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
