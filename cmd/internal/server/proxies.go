package server

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// A Network is a network of proxies, such as 10.0.0.0/8, or one address.
type Network netip.Prefix

// UnmarshalText reads a flag's value. It refuses a network that contains everybody.
func (n *Network) UnmarshalText(text []byte) error {
	prefix, err := netip.ParsePrefix(string(text))
	if err != nil {
		address, err := netip.ParseAddr(string(text))
		if err != nil || address.Zone() != "" {
			return fmt.Errorf("%q is not a network such as 10.0.0.0/8 or fd00::/8, nor an address", text)
		}
		prefix = netip.PrefixFrom(address, address.BitLen())
	}
	if prefix.Addr().Is4In6() {
		return fmt.Errorf("%q is an IPv4 network: write it as an IPv4 network", text)
	}
	if prefix.Bits() == 0 {
		return fmt.Errorf("%q is everybody: whoever connects could say that he is somebody else", text)
	}
	*n = Network(prefix.Masked())
	return nil
}

// Proxies are the networks that are believed.
type Proxies []netip.Prefix

func (p Proxies) trust(address netip.Addr) bool {
	for _, prefix := range p {
		if prefix.Contains(address) {
			return true
		}
	}
	return false
}

// client is who stands behind a connection: the nearest that is not one of our proxies. Each of them has added on the right whom it
// was connected with; what stands left of that, anybody can have made up. What cannot be read is as good as the end.
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
			address, ok := hop(strings.Trim(entry, " \t"))
			if !ok {
				return nearest
			}
			nearest = address
		}
	}
	return nearest
}

// hop reads an address, with a port or without.
func hop(text string) (netip.Addr, bool) {
	if with, err := netip.ParseAddrPort(text); err == nil {
		return with.Addr().Unmap().WithZone(""), true
	}
	if inner, ok := strings.CutPrefix(text, "["); ok {
		if text, ok = strings.CutSuffix(inner, "]"); !ok {
			return netip.Addr{}, false
		}
	}
	address, err := netip.ParseAddr(text)
	return address.Unmap().WithZone(""), err == nil
}

// seeThrough puts the client's own address in place of the proxy's.
func (p Proxies) seeThrough(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			if client := p.client(peer.Addr(), r.Header.Values("X-Forwarded-For")); client != peer.Addr() {
				r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
			}
		}
		next.ServeHTTP(w, r)
	})
}
