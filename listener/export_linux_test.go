package listener

// Nap sleeps as the listener does between two polls.
var Nap = nap

// Direct replaces a connection as the listener does for the connection on which it reads rows.
var Direct = direct
