package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/alecthomas/kong"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/server"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

type serveCmd struct {
	database.Flags
	Poll             bool          `group:"database" help:"Poll the database ten times a second, instead of LISTEN: for connections through a transaction pooler such as PgBouncer."`
	NoNotifyMessages bool          `group:"database" help:"Ignore messages that are sent by hand with NOTIFY, as every role of the database can."`
	Retain           time.Duration `group:"database" default:"7d" min:"0s" max:"36500d" placeholder:"TIME" help:"How long rows are kept, by their created_at (default ${default}). 0 keeps all."`
	Replays          int           `group:"database" default:"${replays}" min:"1" max:"1000" placeholder:"N" help:"The most connections used at a time to read what clients missed (default ${default})."`

	Listen                   string           `group:"http" default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where to listen (default ${default}). Port 0 takes any free one, which the log tells."`
	AdminListen              string           `group:"http" placeholder:"HOST:PORT" help:"Where to serve /healthz, /readyz and /metrics instead of at --listen, and /disconnect."`
	CORSOrigin               []origin         `group:"http" name:"cors-origin" placeholder:"ORIGIN" help:"Let pages of this origin open streams, with their cookies: https://app.example.com. Give it once for each."`
	TrustedProxy             []server.Network `group:"http" name:"trusted-proxy" placeholder:"CIDR" help:"Believe the X-Forwarded-For of the proxies in this network, 10.0.0.0/8 for example: who their client is. Give it once for each."`
	MaxConnections           int              `group:"http" min:"0" max:"10000000" placeholder:"N" help:"The most streams at a time. Whoever is one too many is told to come back later (0, the default: as many as the limit of open files leaves room for)."`
	MaxConnectionsPerUser    int              `group:"http" min:"0" max:"10000000" placeholder:"N" help:"The most streams of a user at a time (0, the default: no limit)."`
	MaxConnectionsPerAddress int              `group:"http" min:"0" max:"10000000" placeholder:"N" help:"The most streams from an IPv4 address, or from an IPv6 network of 64 bits, at a time (0, the default: no limit). Behind a proxy it needs --trusted-proxy."`

	authFlags

	Heartbeat time.Duration `group:"streams" default:"15s" min:"1ms" max:"1d" placeholder:"DURATION" help:"After how long a silent stream is sent something (default ${default})."`
	Retry     time.Duration `group:"streams" default:"3s" min:"1ms" max:"1d" placeholder:"DURATION" help:"How long clients shall wait on average before they come back (default ${default})."`
	Drain     time.Duration `group:"streams" default:"3s" min:"1ms" max:"6s" placeholder:"DURATION" help:"Over how long the streams are ended when the hub stops (default ${default}, at most 6s)."`
	MaxEvent  byteSize      `group:"streams" default:"16MiB" min:"1B" max:"1GiB" placeholder:"SIZE" help:"The largest data that is sent; of a larger row only its id and size (default ${default})."`
	Backlog   byteSize      `group:"streams" default:"1MiB" min:"1B" max:"1TiB" placeholder:"SIZE" help:"How much a slow client may be owed before it is disconnected, and resumes later (default ${default})."`
	Pending   byteSize      `group:"streams" min:"32MiB" max:"1TiB" placeholder:"SIZE" help:"How much memory may be held for all clients together that have not taken what they are sent. Above it, those who are owed most are disconnected, and resume later (default: 256MiB, or a quarter of the memory limit if that is less)."`
	Memory    byteSize      `group:"streams" default:"64MiB" min:"1B" max:"1TiB" placeholder:"SIZE" help:"How much of the newest events to remember, so that resuming needs no query (default ${default})."`

	logFlags
}

// Help is shown by rowcast serve --help.
func (serveCmd) Help() string {
	return `GET /events is the stream, /rowcast.js the browser client; /healthz, /readyz and /metrics are for monitoring. ` +
		`If PostgreSQL is not there yet, the hub waits for it; until then /readyz is 503 and clients are told to retry later. ` +
		`SIGTERM and SIGINT end the streams so that their clients come back to another hub, or to the next one here. ` +
		`SIGHUP does nothing: passwords and certificates are read anew for each connection to PostgreSQL.`
}

// Validate refuses flags that do not go together.
func (c *serveCmd) Validate(ctx *kong.Context) error { return c.validate(ctx) }

// Run is the hub, until ctx ends.
func (c *serveCmd) Run(ctx context.Context, console console) error {
	logger := c.logger(console.err)
	err := c.run(ctx, logger)
	if err != nil && c.LogFormat == "json" { // for a machine, which expects nothing else
		logger.Error("cannot serve", "error", terminal.OneLine(err))
		return errSaid
	}
	return err
}

func (c *serveCmd) run(ctx context.Context, logger *slog.Logger) error {
	if err := c.check(c.Listen); err != nil {
		return err
	}
	config, err := c.Config()
	if err != nil {
		return err
	}
	if limit := server.LimitMemory(logger); c.Pending == 0 {
		c.Pending = byteSize(server.DefaultPending(limit))
	}
	s := server.New(config, logger)
	s.Listener.Configure, s.Explain = c.Config, c.Explain
	if err := c.configure(s); err != nil {
		return err
	}
	if s.Events.Authenticate, err = c.authenticator(ctx, s.Origins, logger, &s.Failures); err != nil {
		return err
	}
	defer ignoreHangup(logger)()
	err = s.Run(ctx)
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // told to end before it had begun
	}
	if err == nil {
		logger.Info("stopped")
	}
	return c.advise(c.Explain(err))
}

func (c *serveCmd) configure(s *server.Server) error {
	s.Listen, s.AdminListen, s.Replays = c.Listen, c.AdminListen, c.Replays
	if err := s.LimitStreams(c.MaxConnections); err != nil {
		return err
	}
	s.Hub.Limits.User, s.Hub.Limits.Address = c.MaxConnectionsPerUser, c.MaxConnectionsPerAddress
	for _, n := range c.TrustedProxy {
		s.Trusted = append(s.Trusted, netip.Prefix(n))
	}
	if c.InsecureUID == insecureLoopback {
		s.Guard = server.AsLocalhost("; behind a proxy that sends another Host, --insecure-uid=anywhere lifts that")
	}
	if c.AdminListen != "" && !server.IsLoopback(c.AdminListen) {
		s.Logger.Warn("anybody who can reach the administrators' address can end streams and read the metrics", "flag", "--admin-listen", "addr", c.AdminListen)
	}
	for _, o := range c.CORSOrigin {
		s.Origins = append(s.Origins, string(o))
	}
	s.Hub.Heartbeat, s.Hub.Retry, s.Hub.Drain = c.Heartbeat, c.Retry, c.Drain
	s.Hub.Backlog, s.Hub.Memory, s.Hub.Pending = int(c.Backlog), int(c.Memory), int(c.Pending)
	s.Hub.Page = int(c.MaxEvent) + server.PageBytes
	s.Listener.Warm, s.Retention.Keep = int64(c.Memory), c.Retain
	s.Listener.MaxData, s.Listener.PollOnly = int64(c.MaxEvent), c.Poll
	s.NoMessages = c.NoNotifyMessages
	return nil
}

// advise adds what to do about an error, where that is known.
func (c *serveCmd) advise(err error) error {
	if errors.Is(err, sql.ErrNoSchema) || errors.Is(err, sql.ErrRestored) {
		return fmt.Errorf("%w: run rowcast migrate", err)
	}
	if said, ok := errors.AsType[*pgconn.PgError](err); ok && said.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w: rowcast doctor says which rights the hub needs", err)
	}
	return err
}
