package stream

import (
	"net/http"
	"net/netip"
	"sync/atomic"
)

// Limits limit the number of streams that are open at one time. Zero or less means no limit. When a limit is reached,
// the open streams continue, and new clients are answered with "retry later".
type Limits struct {
	Streams int // in total
	User    int // of one user
	Address int // of one client address, which is an IPv4 address or an IPv6 network of 64 bits
}

// Refusals count the requests that Serve answered with "retry later", by the reason.
type Refusals struct {
	// Unavailable counts requests while the Hub had not begun or was stopping, and requests with a recipient that the Hub
	// had disconnected since Grant.Known. It also counts polls that began, but ended before the Hub could read what the
	// client had missed.
	Unavailable atomic.Int64

	Streams atomic.Int64 // Limits.Streams was reached
	User    atomic.Int64 // Limits.User was reached
	Address atomic.Int64 // Limits.Address was reached
}

// An owner is the user and the client address of a stream, for Limits.
type owner struct {
	user    string
	address netip.Addr // invalid if it is unknown
}

// counts are the numbers of open streams by user and by address. They are empty if the Hub has no limit by user or
// address. They belong to the state of a Hub.
type counts struct {
	users     map[string]int
	addresses map[netip.Addr]int
}

// ownerOf returns the owner of a stream. It returns nil if there are no limits by user or address, so that a stream
// needs no memory for its owner.
func (l Limits) ownerOf(user string, r *http.Request) *owner {
	if l.User <= 0 && l.Address <= 0 {
		return nil
	}
	return &owner{user, AddressOf(r.RemoteAddr)}
}

// AddressOf returns the client address that limits apply to. remote is a RemoteAddr with or without a port. The result
// is an IPv4 address, or the first address of an IPv6 network of 64 bits. It is invalid if remote contains no address.
func AddressOf(remote string) netip.Addr {
	address, err := netip.ParseAddr(remote)
	if err != nil {
		addressAndPort, _ := netip.ParseAddrPort(remote)
		address = addressAndPort.Addr()
	}
	if address = address.Unmap().WithZone(""); address.Is6() {
		network, _ := address.Prefix(64)
		return network.Addr()
	}
	return address
}

// A reader is the key of a call of the Source: a user, or an address if the user is unknown.
type reader struct {
	user    string
	address netip.Addr
}

func readerOf(user string, r *http.Request) reader {
	if user != "" {
		return reader{user: user}
	}
	return reader{address: AddressOf(r.RemoteAddr)}
}

// exceeded returns the counter of refused requests for the first limit that one more stream would exceed, or nil if
// there is no such limit.
func (st *state) exceeded(o *owner) *atomic.Int64 {
	limits := st.hub.Limits
	switch refused := &st.hub.Stats.Refused; {
	case limits.Streams > 0 && st.roster.open >= limits.Streams:
		return &refused.Streams
	case o == nil:
		return nil
	case limits.User > 0 && o.user != "" && st.counts.users[o.user] >= limits.User:
		return &refused.User
	case limits.Address > 0 && o.address.IsValid() && st.counts.addresses[o.address] >= limits.Address:
		return &refused.Address
	}
	return nil
}

// add changes two numbers by n: the streams of the owner's user, and the streams of the owner's address. n is negative
// when a stream has ended. If o is nil, add does nothing.
func (c *counts) add(o *owner, n int) {
	if o == nil {
		return
	}
	if c.users == nil {
		c.users, c.addresses = make(map[string]int), make(map[netip.Addr]int)
	}
	addTo(c.users, o.user, n)
	addTo(c.addresses, o.address, n)
}

func addTo[K comparable](counts map[K]int, key K, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}
