package cluster

import "context"

var (
	Choose       = choose
	OnPath       = onPath
	Inspect      = inspect
	DownloadFrom = download
)

const DownloadVersion = downloadVersion

// ClientIn is Client with given directories instead of those of this machine.
func (p Programs) ClientIn(ctx context.Context, name string, dirs ...string) (string, error) {
	return p.client(ctx, name, dirs)
}

// PID returns the process id of the server.
func (c *Cluster) PID() int {
	pid, _ := readPIDFile(c.data())
	return pid
}
