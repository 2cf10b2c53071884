package auth

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
)

// checkOrigin denies a request that a page of another origin makes a browser send, because the browser adds the user's cookies.
// Pages of the given origins are allowed. A request that does not come from a page has none of these headers.
func checkOrigin(r *http.Request, origins []string) error {
	if !isAllowedOrigin(r, origins) {
		return forbidden("pages of this origin may not open streams here; --cors-origin lets them")
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
	from, err := url.Parse(origin)
	return err == nil && from.Host != "" && strings.EqualFold(from.Host, r.Host)
}
