package stream

import _ "embed" // for Script

// Script is the browser client, an ES module. It must be served as text/javascript. See stream/web/README.md.
//
//go:embed web/rowcast.js
var Script []byte
