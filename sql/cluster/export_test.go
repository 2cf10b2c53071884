package cluster

var (
	Newest       = newest
	OnPath       = onPath
	Inspect      = inspect
	DownloadFrom = download
	MakeDir      = makeDir
	ServerUser   = serverAccount
)

const DownloadVersion = downloadVersion
