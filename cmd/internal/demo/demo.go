// Package demo runs a hub with a page on which a visitor can insert rows and see them arrive.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/private"
	"rowcast/cmd/internal/server"
	"rowcast/sql/connstring"
)

// A Demo is a hub with a page. Listen, Out and Err must be set.
type Demo struct {
	Listen   string         // the address of the page, which must be a loopback address; if its port is in use, a free port is used
	Database database.Flags // without a database URL, the demo starts a private PostgreSQL
	Fresh    bool           // delete the rows that earlier demos left in the private PostgreSQL

	Out io.Writer // for the address of the page and the commands to try
	Err io.Writer // for progress and the warnings of the hub
}

// Run runs the demo until ctx ends, or until the hub or the private PostgreSQL fails.
func (d *Demo) Run(ctx context.Context) error {
	err := d.run(ctx)
	if d.Database.DatabaseURL != "" {
		err = d.Database.Explain(err)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // interrupted during the start
	}
	return err
}

func (d *Demo) run(ctx context.Context) (err error) {
	progress := private.NewProgress(d.Err)
	address, err := freeAddress(ctx, d.Listen, progress)
	if err != nil {
		return err
	}
	postgres, err := d.open(ctx, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, postgres.close()) }()
	if err := watchOrders(ctx, postgres.dsn); err != nil {
		return err
	}

	config, err := connstring.Parse(postgres.dsn)
	if err != nil {
		return err
	}
	page, err := newPage(ctx, postgres)
	if err != nil {
		return err
	}
	defer page.close()
	hub := server.New(config, slog.New(slog.NewTextHandler(d.Err, &slog.HandlerOptions{Level: slog.LevelWarn})))
	hub.Listen, hub.Routes, hub.Inbox = address, page.routes, true
	hub.Guard = func(next http.Handler) http.Handler { return guard(hub.AsLocalhost("")(next)) }
	hub.Hub.Drain, hub.Hub.Retry = 300*time.Millisecond, time.Second
	hub.Listening = func(addr net.Addr) { printCommands(d.Out, "http://"+addr.String(), postgres) }

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return hub.Run(running) })
	group.Go(func() error { return postgres.wait(running) })
	return group.Wait()
}

// freeAddress returns the address listen if its port is free. If the port is in use, it returns the same host with port
// 0, which stands for any free port.
func freeAddress(ctx context.Context, listen string, progress *private.Progress) (string, error) {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", listen)
	if err == nil {
		return listen, socket.Close()
	}
	if !isInUse(err) {
		return "", fmt.Errorf("cannot listen: %w: choose another address with --listen", err)
	}
	progress.Step(fmt.Sprintf("%s is in use, so the page gets another port", listen))
	host, _, err := net.SplitHostPort(listen)
	return net.JoinHostPort(host, "0"), err
}

// isInUse reports whether err says that an address is in use. Windows has its own number for this error, and
// syscall.EADDRINUSE is another number there.
func isInUse(err error) bool {
	const onWindows = syscall.Errno(10048) // WSAEADDRINUSE
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, onWindows)
}
