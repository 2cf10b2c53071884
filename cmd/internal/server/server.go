// Package server runs a complete hub: a listener that reads new rows, a [stream.Hub] that sends them to clients,
// connections for replays, retention, the inbox, and the HTTP servers.
package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"sync"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/listener/loglimit"
	"rowcast/stream"
	"rowcast/stream/auth"
)

// A Server is a hub with everything that it needs. [New] sets the defaults. The fields must not be changed after Run is
// called.
type Server struct {
	Listener  listener.Listener  // Run connects the listener to the hub
	Hub       stream.Hub         // Run connects the hub to the listener
	Retention listener.Retention // if its field Keep is 0, no rows are deleted
	Replays   int                // the maximum number of connections for replays; the default is DefaultReplays
	Logger    *slog.Logger

	Listen          string   // the host:port for streams
	AdminListen     string   // the host:port for health, metrics and /disconnect; if empty, health and metrics are served at Listen
	EventsPath      string   // the path of the stream at Listen; the default is /events. SetEventsPath sets it
	Origins         []string // origins whose pages may open streams, besides the hub's own origin
	LoopbackOrigins bool     // pages of loopback origins may open streams, too
	CORSHeaders     []string // further request headers that pages of these origins may send
	Trusted         Proxies  // proxies whose headers X-Forwarded-For, -Proto and -Host are trusted

	Events    auth.Handler                    // the handler of EventsPath; the default authenticator is InsecureUID
	Guard     func(http.Handler) http.Handler // wraps all handlers at Listen; may be nil
	Routes    func(chi.Router)                // adds routes at Listen; may be nil
	Listening func(net.Addr)                  // called once, as soon as clients can open streams; may be nil
	Explain   func(error) error               // rewrites a database error for the log

	NoMessages bool // ignore messages that are sent with NOTIFY
	Inbox      bool // serve /inbox, and send rowcast.inbox events; the inbox must be installed in the database

	// Failures records the failures of /disconnect, of accepting connections, of authentication and of the inbox.
	Failures failures.Record

	idle             *idleConns // connections without a stream at Listen
	noLimit          error      // why the last call of LimitStreams failed; Run returns it
	memory           memoryLimit
	inboxes          *inboxes                                          // nil without Inbox; set by Run
	disconnectOthers func(ctx context.Context, recipient string) error // notifies all other hubs; set by Run

	httpErrors       loglimit.Limit // limits the log lines of net/http, which clients can cause
	disconnectErrors loglimit.Limit // limits the log lines about other hubs that could not be notified
	panics           loglimit.Limit // limits the log lines about handlers that panicked
}

// PageBytes is the default of Listener.PageBytes, in bytes. It approximately bounds the size of the rows that are read
// at once. A single larger row is read nevertheless.
const PageBytes = 1 << 20

// New returns a server for a database. The maximum number of streams is what the limit of open files allows, until
// LimitStreams sets another.
func New(database *pgx.ConnConfig, logger *slog.Logger) *Server {
	s := &Server{Logger: logger, Replays: DefaultReplays(), EventsPath: "/events", Explain: func(err error) error { return err }, idle: newIdleConns(0)}
	s.Events.Hub, s.Events.Authenticate, s.Events.Logger = &s.Hub, new(auth.InsecureUID).Authenticate, logger
	_ = s.LimitStreams(0) // Run returns the error
	s.Listener.Config, s.Listener.Logger, s.Hub.Logger, s.Retention.Logger = database, logger, logger, logger
	return s
}

// DefaultReplays returns GOMAXPROCS, but at least 2 and at most 4. With more connections, many clients that reconnect
// at once would hardly resume faster, and live streams would have less CPU. Also, several hubs may share the
// connections of one PostgreSQL server.
func DefaultReplays() int { return min(max(runtime.GOMAXPROCS(0), 2), 4) }

// Run serves until ctx ends or an operation fails that is not retried. It serves HTTP from the beginning. Until the hub
// has begun ([stream.Hub.Begun]), it asks clients to retry later. When ctx ends, the hub first ends its streams, and
// asks new clients to retry later. After that the HTTP servers stop, and the listener stops last.
func (s *Server) Run(ctx context.Context) error {
	if s.noLimit != nil {
		return s.noLimit
	}
	replayer, err := s.Listener.NewReplayer(ctx, s.Replays)
	if err != nil {
		return err
	}
	var closing sync.WaitGroup // while PostgreSQL does not answer, each of the two takes a second
	defer closing.Wait()
	defer closing.Go(replayer.Close)
	s.connect(replayer)
	closeInbox, err := s.openInbox(ctx)
	if err != nil {
		return err
	}
	defer closing.Go(closeInbox)
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
		s.announce(running, servers)
		return nil
	})
	group.Go(func() error {
		defer stopFeeding()
		return errors.Join(s.Hub.Run(running), shutdown(servers))
	})
	return group.Wait()
}

// connect connects the listener to the hub.
func (s *Server) connect(replayer *listener.Replayer) {
	s.Hub.Reads = s.Replays
	s.Hub.Source = replayer
	s.Listener.Deliver = s.Hub.Publish
	if !s.NoMessages {
		s.Listener.Message = s.Hub.Send
	}
	s.Listener.Disconnect = func(recipient string) { s.Hub.Disconnect(recipient) }
	s.disconnectOthers = replayer.Disconnect
}

// announce logs the addresses as soon as clients can open streams. When running ends, it logs that the server is
// stopping, unless the server failed before clients could open streams.
func (s *Server) announce(running context.Context, servers []*httpServer) {
	select {
	case <-s.Hub.Begun():
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
