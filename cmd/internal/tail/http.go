package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"rowcast/cmd/internal/terminal"
)

// open requests the stream. The stream continues after the last event that the client has received.
func (t *Client) open(ctx context.Context) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL.String(), nil)
	if err != nil {
		return nil, Refusal{text: err.Error()}
	}
	if t.UID != "" || t.Topics != nil {
		request.URL.RawQuery = t.query(request.URL.Query()).Encode()
	}
	if t.Token != "" {
		request.Header.Set("Authorization", "Bearer "+t.Token)
	}
	if terminal.HasControl(t.decoder.LastID) {
		return nil, Refusal{text: "the id of the last event contains control characters, so the stream cannot be resumed"}
	}
	if t.decoder.LastID != "" {
		request.Header.Set("Last-Event-ID", t.decoder.LastID)
	}
	request.Header.Set("Accept", "text/event-stream")
	request.Header.Set("Cache-Control", "no-store")
	response, err := t.client.Do(request)
	if err != nil {
		return nil, err
	}
	if err := check(response); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
}

// query adds the user and the topics to the query of the URL.
func (t *Client) query(query url.Values) url.Values {
	if t.UID != "" {
		query.Set("uid", t.UID)
	}
	for _, topic := range t.Topics {
		query.Add("topic", topic)
	}
	return query
}

// followNoRedirect keeps the client from sending a token to another address.
func followNoRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// check returns an error if the response is not a stream. The error is a Refusal unless a later attempt may succeed.
func check(response *http.Response) error {
	where := withoutSecrets(response.Request.URL)
	status := response.StatusCode
	if status == http.StatusOK {
		kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
		if kind != "text/event-stream" {
			return Refusal{status, fmt.Sprintf("%s is not an event stream: its content type is %q", where, response.Header.Get("Content-Type"))}
		}
		return nil
	}
	text := fmt.Sprintf("%s answered %s", where, response.Status)
	if status/100 == 3 {
		return Refusal{status, text + ": rowcast tail follows no redirect, because it could send a token to another address; give the final URL"}
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 300))
	if reason := terminal.Printable(string(body)); strings.TrimSpace(reason) != "" {
		text += ": " + reason
	}
	if status == http.StatusNotFound && !strings.Contains(string(body), "the stream is at") { // a hub names its path
		text += "; there is no rowcast at this URL, or its path is wrong: the stream of rowcast serve is at /events, unless --events-path sets another path"
	}
	if status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests {
		return errors.New(text)
	}
	return Refusal{status, text}
}

// A watch reads a stream and calls a function when no data has arrived for some time. Without a watch, the client would
// wait for ever on a broken connection that the network does not report.
type watch struct {
	io.Reader
	timer   *time.Timer
	timeout time.Duration
}

func newWatch(r io.Reader, silent func()) *watch {
	const timeout = time.Minute // applies until rowcast.hello announces the heartbeat interval
	return &watch{Reader: r, timer: time.AfterFunc(timeout, silent), timeout: timeout}
}

func (w *watch) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.timer.Reset(w.timeout)
	return n, err
}

// setHeartbeat sets the timeout to three times the heartbeat interval that rowcast.hello announces, but at least 1 s.
func (w *watch) setHeartbeat(hello string) {
	var data struct {
		Heartbeat float64 `json:"heartbeat"` // seconds
	}
	if json.Unmarshal([]byte(hello), &data) == nil && data.Heartbeat > 0 {
		w.timeout = max(time.Second, time.Duration(3*data.Heartbeat*float64(time.Second)))
		w.timer.Reset(w.timeout)
	}
}
