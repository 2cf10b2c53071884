package auth

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin denies requests from pages of other origins, except for the given origins. The browser adds the user's cookies to such a
// request, so any page could otherwise read the user's events. Requests that do not come from a page are allowed.
// They have no Origin header and no Sec-Fetch-Site header.
func checkOrigin(r *http.Request, origins []string) error {
	if !isAllowedOrigin(r, origins) {
		return forbidden("pages of this origin may not open streams (the hub's option --cors-origin allows an origin)")
	}
	return nil
}

func isAllowedOrigin(r *http.Request, origins []string) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case slices.Contains(origins, strings.ToLower(origin)):
		return true
	case site != "": // the browser's own decision, which does not depend on the Host that a proxy sends
		return site == "same-origin" || site == "none"
	case origin == "":
		return true
	}
	page, err := url.Parse(origin)
	return err == nil && page.Host != "" && strings.EqualFold(page.Host, r.Host)
}

// IsLoopbackOrigin reports whether the origin of a page is localhost, an address in 127.0.0.0/8 or [::1], with any port. Such a page comes
// from this machine. The origin "null", which any page can have, is not a loopback origin.
func IsLoopbackOrigin(origin string) bool {
	origin = strings.ToLower(origin)
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || origin != u.Scheme+"://"+u.Host {
		return false
	}
	return u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
}
