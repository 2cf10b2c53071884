package stream

import _ "embed" // for the scripts

// Script is the browser client, an ES module. It must be served as text/javascript. See stream/web/README.md.
//
//go:embed web/rowcast.js
var Script []byte

// InboxScript is the element <rowcast-inbox>, an ES module. It imports InboxStoreScript as "./rowcast-inbox-store.js".
//
//go:embed web/rowcast-inbox.js
var InboxScript []byte

// InboxStoreScript is the list of an inbox without the element, an ES module. It imports Script as "./rowcast.js".
//
//go:embed web/rowcast-inbox-store.js
var InboxStoreScript []byte
