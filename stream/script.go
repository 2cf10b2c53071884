package stream

import (
	"crypto/sha256"
	_ "embed" // for the scripts
	"encoding/hex"
)

//go:generate -command build go tool -modfile=../.ci/tools.mod esbuild --bundle --format=esm --minify --legal-comments=none --log-level=warning
//go:generate build web/src/index.js --outfile=web/rowcast.js
//go:generate build web/src/inbox/store/index.js --external:./web/rowcast.js --outfile=web/rowcast-inbox-store.js
//go:generate build web/src/inbox/element/index.js --external:./web/rowcast-inbox-store.js --outfile=web/rowcast-inbox.js

// Script is the browser client, an ES module that go generate builds from the modules in web/src. It must be served as
// text/javascript. See stream/web/README.md.
//
//go:embed web/rowcast.js
var Script []byte

// ScriptName returns a name for the file of [Script], such as "rowcast-1f0c2d3e4b5a6978.js". The name contains a hash
// of the text of Script. It changes when Script changes, so browsers may cache a URL with this name for a long time.
func ScriptName() string {
	sum := sha256.Sum256(Script)
	return "rowcast-" + hex.EncodeToString(sum[:8]) + ".js"
}

// InboxScript is the element <rowcast-inbox>, an ES module that go generate builds from the modules in web/src/inbox.
// It imports InboxStoreScript as "./rowcast-inbox-store.js".
//
//go:embed web/rowcast-inbox.js
var InboxScript []byte

// InboxStoreScript is an ES module with the class RowcastInbox, the list of a user's inbox. The element <rowcast-inbox>
// uses it, and so can a page that shows the inbox in another way. It imports Script as "./rowcast.js".
//
//go:embed web/rowcast-inbox-store.js
var InboxStoreScript []byte
