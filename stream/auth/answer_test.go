package auth

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func readAnswer(status int, body string) (answer, error) {
	response := &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(body))}
	return readResponse(response, time.Now(), "")
}

// Each wrong answer of the app has its own message, which says what is wrong and does not quote the answer.
func TestEachWrongAnswerHasItsOwnMessage(t *testing.T) {
	t.Parallel()
	const ok, send = `"expires_in": 60`, `: answer with an object such as {"recipient": "alice", "groups": ["team:7"], "expires_in": 300}`
	tests := []struct {
		status     int
		body, want string
	}{
		{204, "", "it answered 204 instead of 200"},
		{302, "secret", "it redirected (302) instead of answering 401 itself"},
		{404, "secret", "it answered 404: the app has no such path"},
		{405, "secret", "it answered 405: the app must accept GET at this path"},
		{500, "secret", "it answered 500"},
		{200, "", "the body is empty" + send},
		{200, " \n", "the body is empty" + send},
		{200, "<html>secret", "the body is HTML or XML instead of JSON" + send},
		{200, "secret", "the body is not valid JSON" + send},
		{200, `{"recipient": "secret"`, "the body is not valid JSON, or text follows the object" + send},
		{200, `"secret"`, "the body is text instead of an object" + send},
		{200, `["secret"]`, "the body is an array instead of an object" + send},
		{200, `null`, "the body is null instead of an object" + send},
		{200, strings.Repeat(" ", maxAnswer) + "{}", "the body is longer than 64 KiB"},
		{200, `{"recipient": "secret", "recipient": "alice", ` + ok + `}`, "recipient occurs twice"},
		{200, `{"recipient": "secret", "groups": [], "groups": [], ` + ok + `}`, "groups occurs twice"},
		{200, `{"recipient": "secret", "expires_in": 1, "expires_in": 2}`, "expires_in occurs twice"},
		{200, `{"recipient": "alice", "secret": 1, "secret": 2, ` + ok + `}`, "a key of the body occurs twice"},
		{200, `{"Recipient": "secret", ` + ok + `}`, "recipient is missing (keys are case-sensitive)"},
		{200, `{"recipient": "", ` + ok + `}`, "recipient is empty"},
		{200, `{"recipient": null, ` + ok + `}`, "recipient is null: send text or an integer"},
		{200, `{"recipient": true, ` + ok + `}`, "recipient is a boolean: send text or an integer"},
		{200, `{"recipient": ["secret"], ` + ok + `}`, "recipient is an array: send text or an integer"},
		{200, `{"recipient": {"id": "secret"}, ` + ok + `}`, "recipient is an object: send text or an integer"},
		{200, `{"recipient": 1.5, ` + ok + `}`, "recipient is a number with a fraction or an exponent: send text or an integer"},
		{200, `{"recipient": 1e3, ` + ok + `}`, "recipient is a number with a fraction or an exponent: send text or an integer"},
		{200, `{"recipient": "alice", "groups": "secret:7", ` + ok + `}`, "groups is text: send an array of text"},
		{200, `{"recipient": "alice", "groups": {"secret:7": true}, ` + ok + `}`, "groups is an object: send an array of text"},
		{200, `{"recipient": "alice", "groups": ["team:7", 8], ` + ok + `}`, "element 2 of groups is a number: send an array of text"},
		{200, `{"recipient": "alice", "groups": [null], ` + ok + `}`, "element 1 of groups is null: send an array of text"},
		{200, `{"recipient": "secret"}`, "expires_in is missing (keys are case-sensitive)"},
		{200, `{"recipient": "secret", "expires_in": "60"}`, "expires_in is text: send a number of seconds"},
		{200, `{"recipient": "secret", "expires_in": null}`, "expires_in is null: send a number of seconds"},
		{200, `{"recipient": "secret", "expires_in": 1e999}`, "expires_in is too large"},
		{200, `{"recipient": "secret", "expires_in": 0.9}`, "expires_in is less than 1 second"},
		{200, `{"recipient": "secret", "expires_in": -1}`, "expires_in is less than 1 second"},
	}
	for _, tt := range tests {
		_, err := readAnswer(tt.status, tt.body)
		if want := errEndpoint.Error() + ": " + tt.want; !errors.Is(err, errEndpoint) || err.Error() != want {
			t.Errorf("%d %.60s: got the error %v, want %s", tt.status, tt.body, err, want)
		}
	}
	cutOff := &http.Response{StatusCode: 200, Body: io.NopCloser(io.MultiReader(strings.NewReader("{"), brokenReader{}))}
	if _, err := readResponse(cutOff, time.Now(), ""); err == nil || err.Error() != errEndpoint.Error()+": the body was cut off" {
		t.Errorf("a body that was cut off: got the error %v, want an error that says so", err)
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("secret") }

// The recipient may be an integer. Its text is the recipient, without a loss of digits.
func TestRecipientIsAnInteger(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"0", "7", "-7", "9007199254740993", "18446744073709551615"} {
		got, err := readAnswer(200, fmt.Sprintf(`{"recipient": %s, "groups": ["team:7"], "expires_in": 60}`, id))
		if err != nil || got.grant.User != id || len(got.grant.Groups) != 1 {
			t.Errorf("%s: got %+v, %v, want this user and one group", id, got.grant, err)
		}
	}
}
