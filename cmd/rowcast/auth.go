package main

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"rowcast/stream"
)

// An authenticator says who a request is from. Its error is a denial, or something that will pass: then the client is told to
// come back later, since an EventSource that meets an error status does not come back at all.
type authenticator func(r *http.Request) (stream.Grant, error)

// A denial is why a request gets no stream. Its text is sent and logged, and has nothing of what the request said.
type denial struct {
	status int
	text   string
}

func (d denial) Error() string { return d.text }

func unauthorized(text string) error { return denial{http.StatusUnauthorized, text} }
func forbidden(text string) error    { return denial{http.StatusForbidden, text} }

// events opens a stream for whom the request is from.
func (s *service) events(w http.ResponseWriter, r *http.Request) {
	grant, err := s.authenticate(r)
	giveTime(w) // however long that took
	denied, isDenied := errors.AsType[denial](err)
	switch {
	case isDenied:
		s.denied.Add(1)
		if logger, ok := s.denials.Allow(s.logger); ok {
			logger.Info("a stream was denied", "status", denied.status, "reason", denied.text, "from", r.RemoteAddr)
		}
		if denied.status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, denied.text, denied.status)
	case err != nil && r.Context().Err() != nil: // the client has gone meanwhile, and that is all
	case err != nil:
		s.unknown.Add(1)
		if logger, ok := s.unknowns.Allow(s.logger); ok {
			logger.Warn("cannot authenticate a request for a stream", "reason", err.Error(), "from", r.RemoteAddr)
		}
		s.hub.ComeBackLater(w)
	default:
		s.hub.Serve(w, r, grant)
	}
}

// namesOfClients are all by which a client is named, or its token, anywhere in rowcast and by those who write tokens.
var namesOfClients = []string{
	"uid", "user", "recipient", "sub", "group", "groups",
	"token", "access_token", "id_token", "jwt", "ticket", "auth", "bearer", "authorization",
}

// nothingInURL denies what comes in the URL, in whatever letters: it could neither widen a stream, nor may it be taken for having
// done so. And a URL ends in logs.
func nothingInURL(next authenticator) authenticator {
	return func(r *http.Request) (stream.Grant, error) {
		given := slices.Collect(maps.Keys(r.URL.Query()))
		for _, name := range namesOfClients {
			if slices.ContainsFunc(given, func(key string) bool { return strings.EqualFold(key, name) }) {
				return stream.Grant{}, denial{http.StatusBadRequest, "the URL does not say who you are here: leave " + name + " out of it, and send a token in the Authorization header or a cookie"}
			}
		}
		return next(r)
	}
}

// groupMark keeps users and groups apart, who share the column recipient: a group's key has it in it, a user's id has not.
type groupMark string

// UnmarshalText refuses what no group's key can have in it beside something else. Nothing at all is refused where it is of every flag.
func (m *groupMark) UnmarshalText(text []byte) error {
	*m = groupMark(text)
	switch {
	case len(text) == 0:
		return nil
	case len(text) >= maxRecipient:
		return fmt.Errorf("a group's key has %d bytes at most, and more in it than its mark", maxRecipient)
	}
	return checkRecipient("mark", string(text))
}

// maxGroups bounds what one stream costs.
const maxGroups = 100

// grant is for a user and his groups, if they can be told apart and can be recipients at all.
func (m groupMark) grant(user string, groups []string) (stream.Grant, error) {
	if err := checkRecipient("user's id", user); err != nil {
		return stream.Grant{}, err
	}
	if strings.Contains(user, string(m)) {
		return stream.Grant{}, forbidden(fmt.Sprintf("the user's id has a %q in it, as only a group's key may", string(m)))
	}
	if len(groups) > maxGroups {
		return stream.Grant{}, forbidden(fmt.Sprintf("more than %d groups", maxGroups))
	}
	for _, group := range groups {
		if err := checkRecipient("group's key", group); err != nil {
			return stream.Grant{}, err
		}
		if !strings.Contains(group, string(m)) {
			return stream.Grant{}, forbidden(fmt.Sprintf("a group's key has no %q in it, so it could be a user's id", string(m)))
		}
	}
	return stream.Grant{User: user, Groups: groups}, nil
}

// checkRecipient refuses what is no recipient in the table, or would not be the same there. Spaces around it and invisible letters
// (U+202E) are not refused: "alice " is somebody else than alice in the table, too, and no log names either.
func checkRecipient(what, recipient string) error {
	switch {
	case recipient == "":
		return forbidden("the " + what + " is empty")
	case len(recipient) > maxRecipient:
		return forbidden(fmt.Sprintf("the %s is longer than %d bytes", what, maxRecipient))
	case !utf8.ValidString(recipient) || strings.ContainsRune(recipient, utf8.RuneError): // which JSON puts in the place of what is none
		return forbidden("the " + what + " is not UTF-8")
	case strings.ContainsFunc(recipient, unicode.IsControl):
		return forbidden("the " + what + " has control characters in it")
	}
	return nil
}
