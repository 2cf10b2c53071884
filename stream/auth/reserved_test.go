package auth

import (
	"errors"
	"net/http"
	"testing"

	"github.com/golang-jwt/jwt/v5"
)

// The recipients of inbox events begin with "rowcast.". No authenticator grants such a recipient as a user, a group or
// a topic, because the client could then receive the inbox events of another user.
func TestReservedRecipientsAreRefused(t *testing.T) {
	t.Parallel()
	const name, reserved = "rowcast.inbox:bob", ` begins with "rowcast.", which is reserved`
	tokens, sign := newTokens(t)
	token := func(query string, claims jwt.MapClaims) error {
		_, err := tokens.Authenticate(requestTo(t, query, "Authorization", "Bearer "+sign(claims)))
		return err
	}
	answered := func(body string) error {
		_, err := readAnswer(http.StatusOK, body)
		return err
	}
	uid := func(query string) error {
		_, err := new(InsecureUID).Authenticate(requestTo(t, query))
		return err
	}
	for what, test := range map[string]struct {
		err    error
		status int
		want   string
	}{
		"the sub of a token":             {token("", jwt.MapClaims{"sub": name}), 403, "the user's id" + reserved},
		"a group of a token":             {token("", jwt.MapClaims{"sub": "alice", "groups": []string{name}}), 403, "the name of a group" + reserved},
		"a topic that a pattern covers":  {token("topic="+name, jwt.MapClaims{"sub": "alice", "topics": []string{"*"}}), 400, "a topic" + reserved},
		"a topic pattern of a new token": {GroupMark("").CheckTopics([]string{"rowcast.*"}), 403, "a topic" + reserved},
		"the recipient of an answer":     {answered(`{"recipient": "` + name + `", "expires_in": 60}`), 403, "the user's id" + reserved},
		"a group of an answer":           {answered(`{"recipient": "alice", "groups": ["` + name + `"], "expires_in": 60}`), 403, "the name of a group" + reserved},
		"the parameter uid":              {uid("uid=" + name), 400, "the uid" + reserved},
		"a topic beside uid":             {uid("uid=alice&topic=" + name), 400, "a topic" + reserved},
	} {
		denial, denied := errors.AsType[Denial](test.err)
		if !denied || denial.Status != test.status || denial.Reason != test.want {
			t.Errorf("%s: got the status %d and the error %v, want %d, %s", what, denial.Status, test.err, test.status, test.want)
		}
	}
}
