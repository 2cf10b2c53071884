package auth

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin denies a request from a page unless the origin of the page is the hub's own or one of origins. The
// browser adds the user's cookies to such a request, so any page could otherwise open the user's streams. A request
// that has no Origin header and no Sec-Fetch-Site header is allowed, because it does not come from a page of another
// origin that could read the answer.
func checkOrigin(r *http.Request, origins []string) error {
	if !isAllowedOrigin(r, origins) {
		return ForeignPage(r)
	}
	return nil
}

// ForeignPage returns the denial of a request from a page whose origin may not use the hub.
func ForeignPage(r *http.Request) Denial {
	origin := "another origin"
	if header := r.Header.Get("Origin"); header != "" {
		origin = fmt.Sprintf("the origin %.200q", header)
	}
	return Denial{Status: http.StatusForbidden, Reason: "pages of " + origin + " may not use this hub (the hub's option --cors-origin allows an origin)"}
}

func isAllowedOrigin(r *http.Request, origins []string) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case slices.ContainsFunc(origins, func(allowed string) bool { return strings.EqualFold(allowed, origin) }):
		return true
	case site != "": // the browser has compared the origins, and knows the Host before a proxy changes it
		return site == "same-origin" || site == "none"
	case origin == "":
		return true
	}
	page, err := url.Parse(origin)
	return err == nil && page.Host != "" && strings.EqualFold(page.Host, r.Host)
}

// IsLoopbackOrigin reports whether the origin of a page is localhost, an address in 127.0.0.0/8 or [::1], with any
// port. Such a page comes from the machine on which the browser runs. The origin "null", which any page can have, is
// not a loopback origin.
func IsLoopbackOrigin(origin string) bool {
	origin = strings.ToLower(origin)
	u, err := url.Parse(origin)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || origin != u.Scheme+"://"+u.Host {
		return false
	}
	return u.Hostname() == "localhost" || net.ParseIP(u.Hostname()).IsLoopback()
}
