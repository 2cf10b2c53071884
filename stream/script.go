package stream

import _ "embed" // the browser's half

// Script is the browser's half, an ES module: a client that does not give up. It is to be served as text/javascript.
//
//go:embed web/rowcast.js
var Script []byte
