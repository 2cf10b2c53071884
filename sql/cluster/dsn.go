package cluster

import (
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// superuser is the name of the only role that a new cluster has.
const superuser = "postgres"

// DSN is the connection string of a database over the Unix socket. It needs no
// password. Valid once Start has returned, and the same after a restart.
func (c *Cluster) DSN(database string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(superuser),
		Path:     "/" + database,
		RawQuery: "host=" + readable.Replace(url.QueryEscape(c.address.socketDir)) + "&port=" + strconv.Itoa(c.address.port),
	}
	return u.String()
}

// readable turns what QueryEscape gives into what people can read and libpq
// takes, which does not know + for a space.
var readable = strings.NewReplacer("%2F", "/", "+", "%20")

// TCP is the same for clients without Unix sockets: over 127.0.0.1, with the
// password in it.
func (c *Cluster) TCP(database string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := url.URL{
		Scheme:   "postgres",
		User:     url.UserPassword(superuser, c.password()),
		Host:     "127.0.0.1:" + strconv.Itoa(c.address.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// PID is the process id of the postmaster, 0 if the server is not started.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.server == nil {
		return 0
	}
	return c.server.process.Pid
}

// Joined tells whether Start found the server running for other owners.
func (c *Cluster) Joined() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.server != nil && c.joined
}

// password is empty if somebody has removed the file; TCP then fails to log in.
func (c *Cluster) password() string {
	text, _ := os.ReadFile(c.passwordFile())
	return string(text)
}

// What is in Dir, apart from the lock files.
func (c *Cluster) data() string         { return filepath.Join(c.dir, "data") }
func (c *Cluster) logFile() string      { return filepath.Join(c.dir, "log") }
func (c *Cluster) passwordFile() string { return filepath.Join(c.dir, "password") }
func (c *Cluster) portFile() string     { return filepath.Join(c.dir, "port") }
func (c *Cluster) runLink() string      { return filepath.Join(c.dir, "run") }
