package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/flags"
	"rowcast/cmd/internal/server"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

type serveCmd struct {
	database.Flags
	Poll             bool          `group:"database" help:"Poll the database up to ten times a second instead of using LISTEN. Connections through a transaction pooler such as PgBouncer need this."`
	NoNotifyMessages bool          `group:"database" help:"Ignore messages that are sent with NOTIFY instead of an INSERT. Every role of the database can send them."`
	Retain           time.Duration `group:"database" default:"7d" min:"0s" max:"36500d" placeholder:"DURATION" help:"Delete rows this long after their created_at (default ${default}). 0 keeps all rows."`
	Replays          int           `group:"database" default:"${replays}" min:"1" max:"1000" placeholder:"N" help:"Use up to N connections at a time to read the rows that reconnecting clients missed (default ${default})."`

	Listen                   string             `group:"http" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Listen at this address (default ${default}). With port 0 the hub uses a free port and logs it."`
	AdminListen              string             `group:"http" placeholder:"HOST:PORT" help:"Serve /healthz, /readyz and /metrics at this address instead of --listen. Also serve POST /disconnect here, which ends the streams of a recipient, such as a user or a group."`
	CORSOrigin               []flags.Origin     `group:"http" name:"cors-origin" placeholder:"ORIGIN" help:"Allow pages of this origin, such as https://app.example.com, to open streams with the user's cookies. Repeat the flag for more origins."`
	CORSHeader               []flags.HeaderName `group:"http" name:"cors-header" placeholder:"NAME" help:"Allow pages of the origins in --cors-origin to send this request header, such as traceparent. Authorization, Cache-Control and Last-Event-ID are always allowed. Repeat the flag for more headers."`
	EventsPath               flags.Path         `group:"http" default:"/events" placeholder:"PATH" help:"Serve the stream at this path (default ${default}). Some ad blockers block /events."`
	UnavailableStatus        flags.RetryStatus  `group:"http" default:"200" placeholder:"STATUS" help:"Tell clients to retry later with this HTTP status: 200, 500, 502, 503 or 504 (default ${default}). After a status other than 200, a proxy can try another hub, but an EventSource never reconnects. So set another status only behind a proxy that replaces the answer if no hub is left."`
	TrustedProxy             []server.Network   `group:"http" name:"trusted-proxy" placeholder:"CIDR" help:"Trust the X-Forwarded-For header of proxies in this network, such as 10.0.0.0/8. Repeat the flag for more networks."`
	MaxConnections           int                `group:"http" min:"0" max:"10000000" placeholder:"N" help:"Allow up to N streams at a time, and tell further clients to retry later (0, the default: as many as the limit of open files allows)."`
	MaxConnectionsPerUser    int                `group:"http" min:"0" max:"10000000" placeholder:"N" help:"Allow each user up to N streams at a time (0, the default: no limit)."`
	MaxConnectionsPerAddress int                `group:"http" min:"0" max:"10000000" placeholder:"N" help:"Allow each IPv4 address and each IPv6 network of 64 bits up to N streams at a time (0, the default: no limit). Behind a proxy this needs --trusted-proxy."`

	Inbox bool `group:"http" help:"Serve the inbox at /inbox: the newest notifications of a user with what the user has seen, read and archived. Install it first with rowcast migrate --inbox."`

	authFlags

	Heartbeat time.Duration `group:"streams" default:"15s" min:"1ms" max:"1d" placeholder:"DURATION" help:"Send heartbeats to an idle stream at this interval (default ${default})."`
	Retry     time.Duration `group:"streams" default:"3s" min:"1ms" max:"1d" placeholder:"DURATION" help:"Tell clients to wait this long on average before they reconnect after the end of a stream (default ${default})."`
	Drain     time.Duration `group:"streams" default:"3s" min:"1ms" max:"6s" placeholder:"DURATION" help:"When the hub stops, end its streams one after another within this time (default ${default}, at most 6s)."`
	MaxEvent  flags.Size    `group:"streams" default:"16MiB" min:"1B" max:"1GiB" placeholder:"SIZE" help:"Send only the id and the size of rows with more data than this (default ${default})."`
	Backlog   flags.Size    `group:"streams" default:"1MiB" min:"1B" max:"1TiB" placeholder:"SIZE" help:"Disconnect a slow client when more than this is queued for it, not counting the first event. The client can resume later (default ${default})."`
	Pending   flags.Size    `group:"streams" min:"32MiB" max:"1TiB" placeholder:"SIZE" help:"When more than this is queued for all clients together, disconnect the clients with the longest queues. They can resume later (default: 256MiB, or a quarter of the memory limit if that is less)."`
	Memory    flags.Size    `group:"streams" default:"64MiB" min:"1B" max:"1TiB" placeholder:"SIZE" help:"Keep this much of the newest events in memory. Clients that have missed only these events usually resume without a query (default ${default})."`

	LogFormat string `enum:"text,json" default:"text" group:"log" placeholder:"FORMAT" help:"Log to standard error in this format: text or json (default ${default})."`
}

// Help is shown by rowcast serve --help.
func (serveCmd) Help() string {
	return `For example: rowcast serve --database-url postgresql://hub@localhost/app --auth-url http://127.0.0.1:3000/rowcast/auth. ` +
		`/events (see --events-path) is the stream, and /rowcast.js is the browser client. With --inbox, /inbox is the inbox. /healthz, /readyz and /metrics are for monitoring. ` +
		`If PostgreSQL cannot be reached at the start, the hub keeps trying. Meanwhile, /readyz answers 503, and clients are told to retry later. ` +
		`SIGTERM and SIGINT stop the hub: it ends its streams, and the clients reconnect to another hub or to the next hub at this address. ` +
		`SIGHUP has no effect, because password files and certificates are read again for each connection to PostgreSQL.`
}

// checkFlags checks the addresses, and that the flags can be combined. It is not named Validate, because kong would
// then call it before Run, and Run could not write its errors to a log in JSON.
func (c *serveCmd) checkFlags(ctx *kong.Context) error {
	for flag, address := range map[string]string{"--listen": c.Listen, "--admin-listen": c.AdminListen} {
		if !isAddress(address) && address != "" {
			return fmt.Errorf("%s: %q is not HOST:PORT, such as 127.0.0.1:8080 or :8080", flag, address)
		}
	}
	if len(c.CORSHeader) > 0 && len(c.CORSOrigin) == 0 && c.InsecureUID == insecureOff {
		return errors.New("--cors-header has no effect without --cors-origin, which allows pages of another origin")
	}
	if c.Inbox && slices.Equal(c.methods(), []string{byNothing}) {
		return errors.New("--inbox has no effect with --public alone, because an inbox belongs to a user: also give an authentication method, such as --auth-url")
	}
	return c.validate(ctx)
}

// isAddress reports whether text is HOST:PORT. PORT is a number from 0 to 65535, or a name such as http.
func isAddress(text string) bool {
	_, port, err := net.SplitHostPort(text)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err == nil
}

// Run runs the hub until ctx ends or the hub fails.
func (c *serveCmd) Run(ctx context.Context, parsed *kong.Context, console console) error {
	logger := newLogger(console.err, c.LogFormat)
	err := usage(c.checkFlags(parsed))
	if err == nil {
		err = c.run(ctx, logger, console.isProcess)
	}
	if err != nil && c.LogFormat == "json" { // programs that read the log expect JSON on every line
		logger.Error("cannot serve", "error", terminal.OneLine(err))
		return errors.Join(errReported, err)
	}
	return err
}

func (c *serveCmd) run(ctx context.Context, logger *slog.Logger, isProcess bool) error {
	// Signals are ignored before newServer, which can wait for the answers of --jwks-url.
	defer ignoreHangup(logger)()
	if isProcess {
		signal.Ignore(syscall.SIGPIPE) // so that the hub goes on if the program that reads its log ends
	}
	s, err := c.newServer(ctx, logger)
	if err != nil {
		return usage(err)
	}
	if isProcess {
		s.LowerMemoryLimit()
	}
	err = s.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // the command was interrupted while it started
	}
	if err == nil {
		logger.Info("stopped")
	}
	return c.advise(c.Explain(err))
}

// newServer returns the server that the flags describe. It sets the memory limit of the Go runtime and tries to read
// the JSON Web Key Sets of --jwks-url, but does not connect to PostgreSQL.
func (c *serveCmd) newServer(ctx context.Context, logger *slog.Logger) (*server.Server, error) {
	if err := c.check(c.Listen); err != nil {
		return nil, err
	}
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	if limit := server.LimitMemory(logger); c.Pending == 0 {
		c.Pending = flags.Size(server.DefaultPending(limit))
	}
	s := server.New(config, logger)
	s.Listener.Configure, s.Explain = c.Config, c.Explain
	if err := c.configure(s); err != nil {
		return nil, err
	}
	s.Events.Authenticate, err = c.authenticator(ctx, s)
	return s, err
}

// configure sets fields of the server from the flags for HTTP, streams and the database. It logs a warning if the admin
// address is not a loopback address.
func (c *serveCmd) configure(s *server.Server) error {
	s.Listen, s.AdminListen, s.Replays, s.Inbox = c.Listen, c.AdminListen, c.Replays, c.Inbox
	if err := s.LimitStreams(c.MaxConnections); err != nil {
		return err
	}
	s.Hub.Limits.User, s.Hub.Limits.Address = c.MaxConnectionsPerUser, c.MaxConnectionsPerAddress
	for _, n := range c.TrustedProxy {
		s.Trusted = append(s.Trusted, netip.Prefix(n))
	}
	s.LoopbackOrigins = c.InsecureUID != insecureOff
	if c.InsecureUID == insecureLoopback {
		s.Guard = s.AsLocalhost("; behind a proxy that sends another Host header, start the hub with --insecure-uid=anywhere")
	}
	if c.AdminListen != "" && !server.IsLoopback(c.AdminListen) {
		s.Logger.Warn("anybody who can reach the admin address can end streams and read the metrics", "flag", "--admin-listen", "addr", c.AdminListen)
	}
	for _, o := range c.CORSOrigin {
		s.Origins = append(s.Origins, string(o))
	}
	for _, name := range c.CORSHeader {
		s.CORSHeaders = append(s.CORSHeaders, string(name))
	}
	if err := s.SetEventsPath(string(c.EventsPath)); err != nil {
		return fmt.Errorf("--events-path: %w", err)
	}
	s.Hub.UnavailableStatus = int(c.UnavailableStatus)
	s.Hub.Heartbeat, s.Hub.Retry, s.Hub.Drain = c.Heartbeat, c.Retry, c.Drain
	s.Hub.Backlog, s.Hub.Memory, s.Hub.Pending = int(c.Backlog), int(c.Memory), int(c.Pending)
	s.Hub.Page = int(c.MaxEvent) + server.PageBytes
	s.Listener.Warm, s.Retention.Keep = int64(c.Memory), c.Retain
	s.Listener.MaxData, s.Listener.PollOnly = int64(c.MaxEvent), c.Poll
	s.NoMessages = c.NoNotifyMessages
	return nil
}

// advise adds advice to an error if it knows how to fix the cause.
func (c *serveCmd) advise(err error) error {
	if errors.Is(err, sql.ErrNoSchema) || errors.Is(err, sql.ErrRestored) {
		return fmt.Errorf("%w: run rowcast migrate", err)
	}
	if errors.Is(err, sql.ErrNoInbox) {
		return fmt.Errorf("%w; run: rowcast migrate --inbox --hub-role ROLE, where ROLE is the role of this hub", err)
	}
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w: run rowcast doctor, which prints the missing rights", err)
	}
	return err
}

func newLogger(w io.Writer, format string) *slog.Logger {
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{ReplaceAttr: durationAsText}))
	}
	return slog.New(slog.NewTextHandler(w, nil))
}

// durationAsText writes a duration as text, such as 140ms, as the text handler does. The JSON handler would write a
// number of nanoseconds without a unit.
func durationAsText(_ []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	return a
}

// ignoreHangup keeps SIGHUP from ending the process and logs that the signal has no effect. stop restores the default.
func ignoreHangup(logger *slog.Logger) (stop func()) {
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		for range hangups {
			logger.Info("SIGHUP has no effect: password files and certificates are read again for each connection to PostgreSQL")
		}
	}()
	return func() {
		signal.Stop(hangups)
		close(hangups)
	}
}
