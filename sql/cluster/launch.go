package cluster

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// address is where a server listens.
type address struct {
	socketDir string
	port      int
}

// run starts the server on the files.
func (c *Cluster) run(ctx context.Context) (*server, error) {
	var err error
	if c.address.socketDir, err = c.makeSocketDir(); err != nil {
		return nil, err
	}
	begin := time.Now()
	for pause := newPause(); ; {
		if c.address.port, err = c.choosePort(); err != nil {
			return nil, err
		}
		server, err := c.runOnce(ctx)
		switch {
		case err == nil:
			return server, os.WriteFile(c.portFile(), []byte(strconv.Itoa(c.address.port)), 0o600)
		case errors.Is(err, errPortTaken) && c.Port == 0 && !c.made:
			c.address.port = 0 // somebody was faster
		case errors.Is(err, errOrphans) && time.Since(begin) < patience:
			// Sessions of a killed postmaster end when they notice.
		default:
			return nil, err
		}
		if waitErr := pause.wait(ctx); waitErr != nil {
			return nil, errors.Join(waitErr, err)
		}
	}
}

func (c *Cluster) runOnce(ctx context.Context) (*server, error) {
	log, err := openLog(c.logFile())
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := c.account.command(filepath.Join(c.programs.Dir, "postgres"), c.arguments()...)
	cmd.Stdout, cmd.Stderr = log.File, log.File
	server, err := spawn(cmd, c.data(), !c.Shared)
	if err != nil {
		return nil, err
	}
	if err := server.awaitReady(ctx); err != nil {
		return nil, errors.Join(log.explain(err), server.stop(context.WithoutCancel(ctx), Immediate))
	}
	return server, nil
}

// arguments are the server's: -D first, by which isServer knows it again.
func (c *Cluster) arguments() []string {
	settings := map[string]string{
		"listen_addresses":        "127.0.0.1",
		"port":                    strconv.Itoa(c.address.port),
		"unix_socket_directories": c.address.socketDir,
		"unix_socket_permissions": "0700",
		"logging_collector":       "off",
		"log_destination":         "stderr",
	}
	maps.Copy(settings, c.Settings)
	args := []string{"-D", c.data()}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	return args
}

// choosePort returns the configured port, that of the last run, or a free one.
func (c *Cluster) choosePort() (int, error) {
	if c.Port != 0 {
		return c.Port, nil
	}
	if c.made || c.address.port != 0 {
		return c.address.port, nil
	}
	if text, err := os.ReadFile(c.portFile()); err == nil {
		if port, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && free(port) {
			return port, nil
		}
	}
	return freePort()
}

func freePort() (int, error) {
	// Below the range from which systems take the ports of outgoing
	// connections: one of those could take it while the server restarts.
	for range 100 {
		if port := 20000 + rand.IntN(12000); free(port) {
			return port, nil
		}
	}
	return 0, errors.New("find a free TCP port on 127.0.0.1: tried 100 between 20000 and 32000")
}

func free(port int) bool {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
