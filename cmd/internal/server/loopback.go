package server

import (
	"net"
	"net/http"
	"strings"

	"rowcast/stream/auth"
)

// IsLoopback reports whether a host, with or without a port, always means this machine. RFC 6761 reserves localhost and
// its subdomains.
func IsLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// AsLocalhost returns a middleware that refuses requests whose Host header does not name this machine. It protects from
// DNS rebinding: an attacker's page can make its own domain name resolve to this machine, and then the browser treats
// this server as the page's origin. A request without a Host header is accepted, because only HTTP/1.0 allows it, and
// browsers do not use HTTP/1.0. advice is appended to the error. A refused request for a stream is counted and logged
// as denied.
func (s *Server) AsLocalhost(advice string) func(http.Handler) http.Handler {
	refusal := auth.Denial{
		Status: http.StatusForbidden,
		Reason: "the Host header must be localhost, a subdomain of localhost, or a loopback address such as 127.0.0.1" + advice,
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Host == "" || IsLoopback(r.Host):
				next.ServeHTTP(w, r)
			case r.URL.Path == s.EventsPath:
				s.Events.Deny(w, r, refusal)
			default:
				http.Error(w, refusal.Reason, refusal.Status)
			}
		})
	}
}
