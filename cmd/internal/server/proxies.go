package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// A Network is a network of trusted proxies, such as 10.0.0.0/8, or a single address.
type Network netip.Prefix

// UnmarshalText reads the value of a flag. It refuses a network that contains all addresses, and an IPv4 network in
// IPv6 notation.
func (n *Network) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil {
		address, err := netip.ParseAddr(string(text))
		if err != nil || address.Zone() != "" {
			return fmt.Errorf("%q is neither a network, such as 10.0.0.0/8 or fd00::/8, nor an address", text)
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return fmt.Errorf("%q is an IPv4 network in IPv6 notation: write it as an IPv4 network", text)
	}
	if prefix.Bits() == 0 {
		return fmt.Errorf("%q contains all addresses: every client could then claim any address", text)
	}
	*n = Network(prefix.Masked())
	return nil
}

// Proxies are the networks of trusted proxies.
type Proxies []netip.Prefix

func (p Proxies) trust(address netip.Addr) bool {
	return slices.ContainsFunc(p, func(n netip.Prefix) bool { return n.Contains(address) })
}

// client returns the address of the client that sent a request, from the address of the connection and the
// X-Forwarded-For headers. Each trusted proxy appends the address of the host that connected to it. So the client's
// address is the rightmost address that does not belong to a trusted proxy. The client may have forged all addresses to
// the left of its own. If all addresses belong to trusted proxies, the result is the leftmost address. An entry that is
// not an address ends the search, and the result is the address to the right of that entry.
func (p Proxies) client(peer netip.Addr, forwarded []string) netip.Addr {
	nearest := peer.Unmap().WithZone("")
	for _, line := range slices.Backward(forwarded) {
		for rest, more := line, true; more; {
			if !p.trust(nearest) {
				return nearest
			}
			entry := rest
			if comma := strings.LastIndexByte(rest, ','); comma >= 0 {
				rest, entry = rest[:comma], rest[comma+1:]
			} else {
				more = false
			}
			address, ok := parseEntry(strings.Trim(entry, " \t"))
			if !ok {
				return nearest
			}
			nearest = address
		}
	}
	return nearest
}

// parseEntry reads an entry of X-Forwarded-For: an address, with or without a port.
func parseEntry(text string) (netip.Addr, bool) {
	if parsed, err := netip.ParseAddrPort(text); err == nil {
		return parsed.Addr().Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, false
		}
	}
	address, err := netip.ParseAddr(text)
	return address.Unmap().WithZone(""), err == nil
}

// setClientAddress is a middleware that sets RemoteAddr to the address of the client behind a trusted proxy. It removes
// the headers X-Forwarded-Proto and X-Forwarded-Host from requests that do not come from a trusted proxy.
func (p Proxies) setClientAddress(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		trusted := false
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			if client := p.client(peer.Addr(), r.Header.Values("X-Forwarded-For")); client != peer.Addr() {
				r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
			}
			trusted = p.trust(peer.Addr().Unmap().WithZone(""))
		}
		if !trusted {
			r.Header.Del("X-Forwarded-Proto")
			r.Header.Del("X-Forwarded-Host")
		}
		next.ServeHTTP(w, r)
	})
}
