package auth

import (
	"cmp"
	"fmt"
	"strings"

	"rowcast/listener/feed"
	"rowcast/stream"
)

// A GroupMark distinguishes groups from users, because both are recipients. The name of every group contains it, and no
// user's id does. The zero value means ":".
type GroupMark string

const defaultMark GroupMark = ":"

// UnmarshalText sets the mark to the value of a flag. It returns an error if the value is not valid as a recipient, or
// if it has feed.MaxRecipient bytes or more, because a mark must be shorter than the name of a group. An empty value
// means the default.
func (m *GroupMark) UnmarshalText(text []byte) error {
	*m = GroupMark(text)
	switch {
	case len(text) == 0:
		return nil
	case len(text) >= feed.MaxRecipient:
		return fmt.Errorf("the mark must be shorter than a group's name, which has at most %d bytes", feed.MaxRecipient)
	}
	if err := feed.CheckRecipient(string(text)); err != nil {
		return fmt.Errorf("the mark %w", err)
	}
	return nil
}

// MaxGroups is the maximum number of groups that [GroupMark.Grant] accepts.
const MaxGroups = 100

// Grant returns the grant for a user and the user's groups. It returns a [Denial] if the user or a group is not a valid
// recipient, if the user's id contains the mark, if the name of a group does not contain the mark, or if there are more
// than MaxGroups groups.
func (m GroupMark) Grant(user string, groups []string) (stream.Grant, error) {
	mark := m.text()
	if err := feed.CheckIdentity(user); err != nil {
		return stream.Grant{}, forbidden("the user's id " + err.Error())
	}
	if strings.Contains(user, mark) {
		return stream.Grant{}, forbidden(fmt.Sprintf("the user's id contains %q, which only the name of a group may", mark))
	}
	if len(groups) > MaxGroups {
		return stream.Grant{}, forbidden(fmt.Sprintf("more than %d groups", MaxGroups))
	}
	for _, group := range groups {
		if err := m.checkGroup(group); err != nil {
			return stream.Grant{}, err
		}
	}
	return stream.Grant{User: user, Groups: groups}, nil
}

// CheckTopics returns a [Denial] unless every pattern is valid in the topics claim of a token. A valid pattern is a
// topic, or the beginning of topics followed by "*".
func (m GroupMark) CheckTopics(patterns []string) error {
	for _, pattern := range patterns {
		name, isPrefix := strings.CutSuffix(pattern, "*")
		if isPrefix && name == "" { // all topics
			continue
		}
		if err := feed.CheckIdentity(name); err != nil {
			return forbidden("a topic " + err.Error())
		}
		if mark := m.text(); !isPrefix && !strings.Contains(name, mark) {
			return forbidden(fmt.Sprintf("the topic %q does not contain %q, so it could be a user's id", name, mark))
		}
	}
	return nil
}

// checkGroup returns a [Denial] if a name cannot be the name of a group.
func (m GroupMark) checkGroup(name string) error {
	if err := feed.CheckIdentity(name); err != nil {
		return forbidden("the name of a group " + err.Error())
	}
	if mark := m.text(); !strings.Contains(name, mark) {
		return forbidden(fmt.Sprintf("the name of a group does not contain %q, so it could be a user's id", mark))
	}
	return nil
}

func (m GroupMark) text() string { return string(cmp.Or(m, defaultMark)) }
