// Package sse is the wire format of Server-Sent Events, both ways, after the WHATWG's text
// (https://html.spec.whatwg.org/multipage/server-sent-events.html).
//
// To encode, a value is first made an [ID] or a [Name], which fails if it could not arrive as it is; after that nothing can fail
// or be malformed, and no value can pass for a field, an event or a comment that it is not. Everything that appends ends at the
// end of a line, so what was appended can be joined and shared. To decode there is [Events], or a [Decoder] to resume with.
//
// Bytes that are not UTF-8 are passed on as they are, both ways; a browser shows U+FFFD for them.
package sse
