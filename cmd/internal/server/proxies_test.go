package server

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func parseProxies(t testing.TB, networks ...string) (p Proxies) {
	t.Helper()
	for _, text := range networks {
		var n Network
		if err := n.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		p = append(p, netip.Prefix(n))
	}
	return p
}

// The client's address is the rightmost address that is not a trusted proxy's. A client cannot claim another address.
func TestXForwardedFor(t *testing.T) {
	t.Parallel()
	ours := parseProxies(t, "10.0.0.0/8", "192.0.2.7", "fd00::/8")
	for _, tt := range []struct {
		name, peer string
		headers    []string
		want       string
	}{
		{"no proxy, no header", "203.0.113.1:5", nil, "203.0.113.1:5"},
		{"an untrusted peer with the header", "203.0.113.1:5", []string{"198.51.100.9"}, "203.0.113.1:5"},
		{"an untrusted peer that names a trusted proxy", "203.0.113.1:5", []string{"198.51.100.9, 10.0.0.1"}, "203.0.113.1:5"},
		{"a proxy without the header", "10.1.2.3:5", nil, "10.1.2.3:5"},
		{"a proxy with an empty header", "10.1.2.3:5", []string{""}, "10.1.2.3:5"},
		{"one proxy", "10.1.2.3:5", []string{"203.0.113.1"}, "203.0.113.1:0"},
		{"addresses that the client has written", "10.1.2.3:5", []string{"127.0.0.1, 198.51.100.9, 203.0.113.1"}, "203.0.113.1:0"},
		{"an address that the client has written in a header of its own", "10.1.2.3:5", []string{"198.51.100.9", "203.0.113.1"}, "203.0.113.1:0"},
		{"two proxies", "10.1.2.3:5", []string{"198.51.100.9, 203.0.113.1,192.0.2.7"}, "203.0.113.1:0"},
		{"two proxies, each with a header", "10.1.2.3:5", []string{"198.51.100.9, 203.0.113.1", "192.0.2.7"}, "203.0.113.1:0"},
		{"all addresses are trusted proxies", "10.1.2.3:5", []string{"10.0.0.2, 10.0.0.1"}, "10.0.0.2:0"},
		{"with ports", "10.1.2.3:5", []string{"203.0.113.1:444, 10.0.0.1:80"}, "203.0.113.1:0"},
		{"IPv6", "[fd00::1]:5", []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		{"IPv6 in brackets", "10.1.2.3:5", []string{"[2001:db8::1]"}, "[2001:db8::1]:0"},
		{"IPv6 in brackets with a port", "10.1.2.3:5", []string{"[2001:db8::1]:80, [fd00::2]:1"}, "[2001:db8::1]:0"},
		{"IPv4 written as IPv6", "[::ffff:10.1.2.3]:5", []string{"::ffff:203.0.113.1"}, "203.0.113.1:0"},
		{"an IPv6 zone is removed", "10.1.2.3:5", []string{"fe80::1%eth0"}, "[fe80::1]:0"},
		{"an entry that is not an address", "10.1.2.3:5", []string{"203.0.113.1, unknown"}, "10.1.2.3:5"},
		{"an entry that is not an address, behind a second proxy", "10.1.2.3:5", []string{"203.0.113.1, _hidden, 10.0.0.1"}, "10.0.0.1:0"},
		{"an empty entry", "10.1.2.3:5", []string{"203.0.113.1,"}, "10.1.2.3:5"},
		{"a line break", "10.1.2.3:5", []string{"203.0.113.1\r\n"}, "10.1.2.3:5"},
		{"a peer without an IP address", "@", []string{"203.0.113.1"}, "@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = tt.peer, tt.headers
			ours.setClientAddress(http.HandlerFunc(func(_ http.ResponseWriter, seen *http.Request) {
				if seen.RemoteAddr != tt.want {
					t.Errorf("got %s, want %s", seen.RemoteAddr, tt.want)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
		})
	}
}

// Only a trusted proxy may say which protocol and which host a client has used.
func TestForwardedHeadersOfStrangersAreRemoved(t *testing.T) {
	t.Parallel()
	ours := parseProxies(t, "10.0.0.0/8", "fd00::/8")
	for peer, want := range map[string]string{"10.1.2.3:1": "https", "[::ffff:10.1.2.3]:1": "https", "203.0.113.1:1": "", "[::1]:1": "", "@": ""} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = peer
		for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} {
			r.Header[name] = []string{"https"}
		}
		ours.setClientAddress(http.HandlerFunc(func(_ http.ResponseWriter, seen *http.Request) {
			for _, name := range []string{"X-Forwarded-Proto", "X-Forwarded-Host"} {
				if got := seen.Header.Get(name); got != want {
					t.Errorf("from %s: %s is %q, want %q", peer, name, got, want)
				}
			}
		})).ServeHTTP(httptest.NewRecorder(), r)
	}
}

// Whatever the header contains, the result is the address of the peer or one that a trusted proxy has appended. If the
// result is not a trusted proxy, entries that a client adds on the left change nothing.
func FuzzXForwardedFor(f *testing.F) {
	f.Add("10.1.2.3", "203.0.113.1, 10.0.0.1", "198.51.100.9")
	f.Add("203.0.113.1", "10.0.0.1:80,,", "[fd00::1]:80")
	f.Add("fd00::1", "[2001:db8::1]:80 ,\t[fd00::2]", "unknown")
	f.Add("fd00::", "[2001:db8::1,[fd00::2", "::2]") // a single bracket
	f.Add("10.0.0.1", "::ffff:10.0.0.1,10.0.0.2, fe80::1%eth0", "")
	ours := parseProxies(f, "10.0.0.0/8", "fd00::/8")
	f.Fuzz(func(t *testing.T, peerText, header, before string) {
		peer, err := netip.ParseAddr(peerText)
		if err != nil {
			return
		}
		plain := peer.Unmap().WithZone("")
		got := ours.client(peer, []string{header})
		if !ours.trust(plain) && got != plain {
			t.Errorf("the untrusted peer %s gets the address %s, want its own", peer, got)
		}
		if want := rightmost(ours, plain, header); got != want {
			t.Errorf("%s with %q: got %s, want %s", peer, header, got, want)
		}
		if split := ours.client(peer, strings.Split(header, ",")); split != got {
			t.Errorf("with one header for each entry of %q: got %s, want %s", header, split, got)
		}
		if !ours.trust(got) { // the client may have written the entries to the left of its address
			for _, headers := range [][]string{{before + "," + header}, {before, header}} {
				if longer := ours.client(peer, headers); longer != got {
					t.Errorf("with the client's entries %q on the left of the header: got %s, want %s", before, longer, got)
				}
			}
		}
	})
}

// rightmost computes the client's address in a simpler way, as a model.
func rightmost(ours Proxies, peer netip.Addr, header string) netip.Addr {
	entries := strings.Split(header, ",")
	for len(entries) > 0 && ours.trust(peer) {
		address, ok := parseEntry(strings.Trim(entries[len(entries)-1], " \t"))
		if !ok {
			break
		}
		entries, peer = entries[:len(entries)-1], address
	}
	return peer
}
