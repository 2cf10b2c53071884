package cluster

import "context"

var (
	Choose       = choose
	OnPath       = onPath
	Inspect      = inspect
	DownloadFrom = download
	CopyFiles    = copyFiles
)

const DownloadVersion = downloadVersion

// ClientIn does the same as Client, but searches only dirs.
func (p Programs) ClientIn(ctx context.Context, name string, dirs ...string) (string, error) {
	return p.client(ctx, name, dirs)
}

// Abandon unlocks the directory and leaves the server running, as a killed process
// does on systems on which the server does not end with its parent.
func (c *Cluster) Abandon() {
	unlock(c.lock)
	c.lock = nil
}

// PID returns the process id of the server.
func (c *Cluster) PID() int {
	pid, _ := readPIDFile(c.data())
	return pid
}
