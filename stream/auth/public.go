package auth

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"rowcast/stream"
)

// PublicPrefix is the beginning of the topics that a [Public] grants to every client.
const PublicPrefix = "public:"

// Public gives each client that has no credential a stream of the events for everyone and of the public topics that it
// asks for. Clients with a credential are authenticated by Next, and may ask for public topics, too. All fields may be
// zero.
type Public struct {
	// Next authenticates the clients. Without it, no client needs a credential.
	Next Authenticator
	// Mark is the text that every public topic must contain, so that no topic is the id of a user.
	Mark GroupMark
	// Origins are further origins whose pages may open streams if there is no Next.
	Origins []string
}

// Authenticate is an [Authenticator].
func (p *Public) Authenticate(r *http.Request) (stream.Grant, error) {
	public, rest, err := p.topics(r)
	if err != nil {
		return stream.Grant{}, err
	}
	next := p.Next
	if next == nil {
		next = p.withoutCredential
	}
	grant, err := next(r)
	denial, denied := errors.AsType[Denial](err)
	if denied && denial.noCredential && len(rest) == 0 {
		denied, grant, err = false, stream.Grant{}, nil
	}
	if denied && denial.noCredential && p.Next != nil {
		denial.Reason = fmt.Sprintf("the topic %q needs a credential, because without one only topics that begin with %q are granted: %s", rest[0], PublicPrefix, denial.Reason)
		err = denial
	}
	if err != nil {
		return stream.Grant{}, err
	}
	// The groups of the grant may belong to several streams, so they are copied.
	grant.Groups = slices.Concat(grant.Groups, slices.DeleteFunc(public, func(topic string) bool { return slices.Contains(grant.Groups, topic) }))
	if len(grant.Groups) > MaxGroups {
		return stream.Grant{}, forbidden(fmt.Sprintf("more than %d groups and topics", MaxGroups))
	}
	return grant, nil
}

// topics returns the public topics that a request asks for, and the other topics.
func (p *Public) topics(r *http.Request) (public, rest []string, err error) {
	topics, err := Topics(r)
	for _, topic := range topics {
		if !strings.HasPrefix(topic, PublicPrefix) {
			rest = append(rest, topic)
		} else if err := p.Mark.checkGroup(topic); err != nil {
			return nil, nil, err
		} else {
			public = append(public, topic)
		}
	}
	return public, rest, err
}

// withoutCredential is the authenticator of a hub that has public streams only. It regards every client as a client
// without a credential.
func (p *Public) withoutCredential(r *http.Request) (stream.Grant, error) {
	if err := checkURL(r); err != nil {
		return stream.Grant{}, err
	}
	if err := checkOrigin(r, p.Origins); err != nil {
		return stream.Grant{}, err
	}
	return stream.Grant{}, noCredential("this hub has only public streams: ask for topics that begin with " + PublicPrefix)
}
