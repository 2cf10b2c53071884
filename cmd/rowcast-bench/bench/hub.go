package bench

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"os"
	"time"

	"rowcast/cmd/internal/server"
	"rowcast/sql/connstring"
)

// runHub runs a hub with the defaults of rowcast serve, except that it trusts the user in ?uid=, ends its streams
// within 100 ms, and listens on a free port. args can set the flags --max-event, --busy and --quiet. The parent
// reads the address from its log, which is JSON. The environment variable DATABASE_URL contains the connection string.
func runHub(ctx context.Context, args []string, stderr io.Writer) error {
	logger := slog.New(slog.NewJSONHandler(stderr, nil))
	config, err := connstring.Parse(os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	s := server.New(config, logger)
	var maxEvent int
	flags := flag.NewFlagSet("hub", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&maxEvent, "max-event", 16<<20, "maximum size of a row's data in bytes")
	flags.Float64Var(&s.Listener.Busy, "busy", 0, "commits per second above which the listener polls")
	flags.Float64Var(&s.Listener.Quiet, "quiet", 0, "commits per second below which the listener waits for notifications again")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s.Listen = "127.0.0.1:0"
	s.Listener.MaxData, s.Hub.Page = int64(maxEvent), maxEvent+server.PageBytes
	s.Hub.Memory, s.Listener.Warm = 64<<20, 64<<20
	s.Hub.Pending = server.DefaultPending(server.LimitMemory(logger))
	s.LowerMemoryLimit()
	s.Hub.Drain = 100 * time.Millisecond
	s.Retention.Keep = 7 * 24 * time.Hour
	return s.Run(ctx)
}
