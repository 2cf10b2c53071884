package server

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
)

func believe(t testing.TB, networks ...string) (p Proxies) {
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

// Only what one of our Proxies has written is believed: the nearest address that is not a proxy's.
func TestXForwardedFor(t *testing.T) {
	t.Parallel()
	ours := believe(t, "10.0.0.0/8", "192.0.2.7", "fd00::/8")
	for _, tt := range []struct {
		name, peer string
		headers    []string
		want       string
	}{
		{"no proxy, no header", "203.0.113.1:5", nil, "203.0.113.1:5"},
		{"a stranger who claims to be somebody else", "203.0.113.1:5", []string{"198.51.100.9"}, "203.0.113.1:5"},
		{"a stranger who claims to be a proxy", "203.0.113.1:5", []string{"198.51.100.9, 10.0.0.1"}, "203.0.113.1:5"},
		{"a proxy without the header", "10.1.2.3:5", nil, "10.1.2.3:5"},
		{"a proxy with an empty header", "10.1.2.3:5", []string{""}, "10.1.2.3:5"},
		{"one proxy", "10.1.2.3:5", []string{"203.0.113.1"}, "203.0.113.1:0"},
		{"what the client had written is not believed", "10.1.2.3:5", []string{"127.0.0.1, 198.51.100.9, 203.0.113.1"}, "203.0.113.1:0"},
		{"nor in a header of its own", "10.1.2.3:5", []string{"198.51.100.9", "203.0.113.1"}, "203.0.113.1:0"},
		{"two proxies", "10.1.2.3:5", []string{"198.51.100.9, 203.0.113.1,192.0.2.7"}, "203.0.113.1:0"},
		{"two proxies, each with a header", "10.1.2.3:5", []string{"198.51.100.9, 203.0.113.1", "192.0.2.7"}, "203.0.113.1:0"},
		{"Proxies all the way", "10.1.2.3:5", []string{"10.0.0.2, 10.0.0.1"}, "10.0.0.2:0"},
		{"with ports", "10.1.2.3:5", []string{"203.0.113.1:444, 10.0.0.1:80"}, "203.0.113.1:0"},
		{"IPv6", "[fd00::1]:5", []string{"2001:db8::1"}, "[2001:db8::1]:0"},
		{"IPv6 in brackets", "10.1.2.3:5", []string{"[2001:db8::1]"}, "[2001:db8::1]:0"},
		{"IPv6 in brackets with a port", "10.1.2.3:5", []string{"[2001:db8::1]:80, [fd00::2]:1"}, "[2001:db8::1]:0"},
		{"IPv4 written as IPv6", "[::ffff:10.1.2.3]:5", []string{"::ffff:203.0.113.1"}, "203.0.113.1:0"},
		{"a zone is left out", "10.1.2.3:5", []string{"fe80::1%eth0"}, "[fe80::1]:0"},
		{"nonsense is the end", "10.1.2.3:5", []string{"203.0.113.1, unknown"}, "10.1.2.3:5"},
		{"nonsense behind a proxy", "10.1.2.3:5", []string{"203.0.113.1, _hidden, 10.0.0.1"}, "10.0.0.1:0"},
		{"an empty entry is nonsense", "10.1.2.3:5", []string{"203.0.113.1,"}, "10.1.2.3:5"},
		{"line breaks are nonsense", "10.1.2.3:5", []string{"203.0.113.1\r\n"}, "10.1.2.3:5"},
		{"no peer that could be read", "@", []string{"203.0.113.1"}, "@"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequest(http.MethodGet, "/", nil)
			r.RemoteAddr, r.Header["X-Forwarded-For"] = tt.peer, tt.headers
			ours.seeThrough(http.HandlerFunc(func(_ http.ResponseWriter, seen *http.Request) {
				if seen.RemoteAddr != tt.want {
					t.Errorf("got %s, want %s", seen.RemoteAddr, tt.want)
				}
			})).ServeHTTP(httptest.NewRecorder(), r)
		})
	}
}

// FuzzXForwardedFor: whatever stands in the header, the address is the peer's or one that a proxy of ours wrote there; and what a
// client puts before that changes nothing.
func FuzzXForwardedFor(f *testing.F) {
	f.Add("10.1.2.3", "203.0.113.1, 10.0.0.1", "198.51.100.9")
	f.Add("203.0.113.1", "10.0.0.1:80,,", "[fd00::1]:80")
	f.Add("fd00::1", "[2001:db8::1]:80 ,\t[fd00::2]", "unknown")
	f.Add("fd00::", "[2001:db8::1,[fd00::2", "::2]") // half a bracket is no address
	f.Add("10.0.0.1", "::ffff:10.0.0.1,10.0.0.2, fe80::1%eth0", "")
	ours := believe(f, "10.0.0.0/8", "fd00::/8")
	f.Fuzz(func(t *testing.T, peerText, header, before string) {
		peer, err := netip.ParseAddr(peerText)
		if err != nil {
			return
		}
		plain := peer.Unmap().WithZone("")
		got := ours.client(peer, []string{header})
		if !ours.trust(plain) && got != plain {
			t.Errorf("a stranger at %s is taken for %s", peer, got)
		}
		if want := rightmost(ours, plain, header); got != want {
			t.Errorf("%s with %q: got %s, want %s", peer, header, got, want)
		}
		split := ours.client(peer, strings.SplitAfter(header, ","))
		if !strings.Contains(header, ",") && split != got {
			t.Errorf("in several headers: got %s, want %s", split, got)
		}
		if !ours.trust(got) { // made up by whoever stands behind
			for _, headers := range [][]string{{before + "," + header}, {before, header}} {
				if with := ours.client(peer, headers); with != got {
					t.Errorf("with %q before it, %s becomes %s", before, got, with)
				}
			}
		}
	})
}

// rightmost says the same in another way: the entries from the right, as long as all before them are proxies.
func rightmost(ours Proxies, peer netip.Addr, header string) netip.Addr {
	entries := strings.Split(header, ",")
	for len(entries) > 0 && ours.trust(peer) {
		address, ok := hop(strings.Trim(entries[len(entries)-1], " \t"))
		if !ok {
			break
		}
		entries, peer = entries[:len(entries)-1], address
	}
	return peer
}
