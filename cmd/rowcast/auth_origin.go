package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rowcast/stream"
)

// sameSite denies what a page of another origin asks for with the cookies of a user who knows nothing of it. The pages of the
// origins may. What does not come from a page has none of these headers.
func sameSite(origins []string, next authenticator) authenticator {
	return func(r *http.Request) (stream.Grant, error) {
		if !isOurs(r, origins) {
			return stream.Grant{}, forbidden("pages of this origin may not open streams here; --cors-origin lets them")
		}
		return next(r)
	}
}

func isOurs(r *http.Request, origins []string) bool {
	origin, site := r.Header.Get("Origin"), r.Header.Get("Sec-Fetch-Site")
	switch {
	case slices.Contains(origins, strings.ToLower(origin)):
		return true
	case site != "": // the browser itself says so, whatever a proxy made of the host
		return site == "same-origin" || site == "none"
	case origin == "":
		return true
	}
	from, err := url.Parse(origin)
	return err == nil && from.Host != "" && strings.EqualFold(from.Host, r.Host)
}
