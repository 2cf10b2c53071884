package cluster

import "path/filepath"

var (
	Choose       = choose
	Inspect      = inspect
	DownloadFrom = download
	CopyFiles    = copyFiles
)

const DownloadVersion = downloadVersion

// OnPath lists the directories of the programs on a search path.
func OnPath(path string) []string { return expand(filepath.SplitList(path)) }

// Abandon unlocks the directory and leaves the server running. The death of this process would have the same effect on
// a system on which the server does not end with its parent.
func (c *Cluster) Abandon() {
	c.unlock()
	c.unlock = nil
}

// PID returns the process id of the server.
func (c *Cluster) PID() int {
	pid, _ := readPIDFile(c.data())
	return pid
}
