package stream

import (
	"net/http"
	"net/netip"
	"sync/atomic"
)

// Limits are how many streams there may be at a time; zero is no limit. Reaching one affects nobody who is connected: newcomers are
// told to come back later.
type Limits struct {
	Streams int // in all
	User    int // of a user
	Address int // from an address: of IPv6 from a network of 64 bits, as that is what one customer has
}

// Refusals count requests that were answered "come back later", by the reason.
type Refusals struct {
	Away    atomic.Int64 // the Hub had not begun, or was stopping
	Streams atomic.Int64 // there were too many streams in all
	User    atomic.Int64 // of the user
	Address atomic.Int64 // from the address
}

// A holder is for whom and from where a stream is.
type holder struct {
	user    string
	address netip.Addr // invalid if it is not known
}

// A census counts the streams by their holders, as far as these are limited. It is guarded by the hub's lock.
type census struct {
	users     map[string]int
	addresses map[netip.Addr]int
}

// holderOf is nil where nobody counts: then a stream costs nothing more.
func (l Limits) holderOf(user string, r *http.Request) *holder {
	if l.User == 0 && l.Address == 0 {
		return nil
	}
	return &holder{user, AddressOf(r.RemoteAddr)}
}

// AddressOf is what counts as one address, of a RemoteAddr with a port or without: an IPv4 address, or the first of an IPv6 network of
// 64 bits. It is not valid if there is none.
func AddressOf(remote string) netip.Addr {
	address, err := netip.ParseAddr(remote)
	if err != nil {
		with, _ := netip.ParseAddrPort(remote)
		address = with.Addr()
	}
	if address = address.Unmap().WithZone(""); address.Is6() {
		network, _ := address.Prefix(64)
		return network.Addr()
	}
	return address
}

// exceeded is the count of those who were refused for the same reason, if there is a limit that one more would exceed.
func (h *Hub) exceeded(who *holder) *atomic.Int64 {
	switch refused := &h.Stats.Refused; {
	case h.Limits.Streams > 0 && h.Stats.Streams.Load() >= int64(h.Limits.Streams):
		return &refused.Streams
	case who == nil:
		return nil
	case h.Limits.User > 0 && who.user != "" && h.census.users[who.user] >= h.Limits.User:
		return &refused.User
	case h.Limits.Address > 0 && who.address.IsValid() && h.census.addresses[who.address] >= h.Limits.Address:
		return &refused.Address
	}
	return nil
}

// count adds n streams of a holder.
func (c *census) count(who *holder, n int) {
	if who == nil {
		return
	}
	if c.users == nil {
		c.users, c.addresses = make(map[string]int), make(map[netip.Addr]int)
	}
	add(c.users, who.user, n)
	add(c.addresses, who.address, n)
}

func add[K comparable](counts map[K]int, key K, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}
