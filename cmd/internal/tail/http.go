package tail

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"rowcast/cmd/internal/terminal"
)

// open asks for the stream, from where the last one ended.
func (t *Client) open(ctx context.Context) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, t.URL.String(), nil)
	if err != nil {
		return nil, refusal{err.Error()}
	}
	if t.UID != "" {
		query := request.URL.Query()
		query.Set("uid", t.UID)
		request.URL.RawQuery = query.Encode()
	}
	if t.Token != "" {
		request.Header.Set("Authorization", "Bearer "+t.Token)
	}
	if terminal.HasControl(t.decoder.LastID) {
		return nil, refusal{"the last event has an id with control characters in it, so the stream cannot be resumed"}
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
	if err := judge(response); err != nil {
		response.Body.Close()
		return nil, err
	}
	return response, nil
}

// followNone keeps a token from going wherever an answer says.
func followNone(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// judge tells streams from refusals, and those from what may pass.
func judge(response *http.Response) error {
	where := place(response.Request.URL)
	status := response.StatusCode
	if status == http.StatusOK {
		kind, _, _ := mime.ParseMediaType(response.Header.Get("Content-Type"))
		if kind != "text/event-stream" {
			return refusal{fmt.Sprintf("%s is no event stream: its content type is %q", where, response.Header.Get("Content-Type"))}
		}
		return nil
	}
	text := fmt.Sprintf("%s answered %s", where, response.Status)
	if status/100 == 3 {
		return refusal{text + ": it redirects, and a token is for one place alone: give the URL to which it leads"}
	}
	words, _ := io.ReadAll(io.LimitReader(response.Body, 300))
	if words := terminal.Printable(string(words)); strings.TrimSpace(words) != "" {
		text += ": " + words
	}
	if status >= 500 || status == http.StatusRequestTimeout || status == http.StatusTooManyRequests {
		return errors.New(text)
	}
	return refusal{text}
}

// A watch reads a stream and notices when nothing comes any more, which a dead connection alone does not say.
type watch struct {
	io.Reader
	timer    *time.Timer
	patience time.Duration
}

func newWatch(r io.Reader, silent func()) *watch {
	const patience = time.Minute // until the hub has said how often it is to be heard
	return &watch{Reader: r, timer: time.AfterFunc(patience, silent), patience: patience}
}

func (w *watch) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.timer.Reset(w.patience)
	return n, err
}

// learn takes the heartbeat from a hub's greeting. Three may be late before it counts as dead.
func (w *watch) learn(hello string) {
	var says struct {
		Heartbeat float64 `json:"heartbeat"` // seconds
	}
	if json.Unmarshal([]byte(hello), &says) == nil && says.Heartbeat > 0 {
		w.patience = max(time.Second, time.Duration(3*says.Heartbeat*float64(time.Second)))
		w.timer.Reset(w.patience)
	}
}
