// Package sse encodes and decodes Server-Sent Events (https://html.spec.whatwg.org/multipage/server-sent-events.html).
//
// To encode, convert the name of an event to a [Name] first. [NewName] refuses a text that contains a line break. After
// that, encoding cannot fail, and data cannot be mistaken for a field, an event or a comment. All Append functions append
// whole lines, so their results can be concatenated. To decode, use [Events], or a [Decoder] to keep the last event id for
// a reconnect.
//
// Bytes that are not UTF-8 are encoded and decoded unchanged. A browser shows U+FFFD instead of them.
package sse
