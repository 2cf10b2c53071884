package cluster

import "context"

var (
	Choose       = choose
	OnPath       = onPath
	Inspect      = inspect
	DownloadFrom = download
	MakeDir      = makeDir
	ServerUser   = serverAccount
)

const DownloadVersion = downloadVersion

// ClientIn is Client with given directories instead of those of this machine.
func (p Programs) ClientIn(ctx context.Context, name string, dirs ...string) (string, error) {
	return p.client(ctx, name, dirs)
}
