package main_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode"
)

// controls has characters that a terminal interprets: C0, DEL, C1, and marks that change the direction of the text.
const controls = "a\x1b[2Jb\x7fc\u009b1md\u0085e\u202ef"

// escaped is controls as tail prints it.
const escaped = `a\u001b[2Jb\u007fc\u009b1md\u0085e\u202ef`

// checkPrintable fails the test if a text contains characters that a terminal interprets, except line feeds.
func checkPrintable(t *testing.T, what, text string) {
	t.Helper()
	for _, r := range text {
		if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			t.Errorf("%s contains %U, which a terminal interprets: %q", what, r, text)
		}
	}
}

// tail escapes control characters that a hub sends, in lines and in JSON.
func TestTailEscapesControlCharacters(t *testing.T) {
	t.Parallel()
	sent := strings.NewReplacer("\x1b", `\u001b`).Replace(controls) // escaped as JSON requires
	sent = "event: " + controls + "\ndata: \"" + sent + "\"\n\nevent: text\ndata: " + controls + "\n\n"
	for _, args := range [][]string{nil, {"--json"}} {
		url := script(t, streamOf(sent))
		code, stdout, _ := run(t, nil, append([]string{"tail", "--count", "2", "--url", url}, args...)...)
		if code != 0 || strings.Count(stdout, escaped) != 3 {
			t.Errorf("%v: got %d, %q, want 0 and %s three times", args, code, stdout, escaped)
		}
		checkPrintable(t, "the output", stdout)
	}
}

// tail escapes control characters in the status line of an answer.
func TestTailEscapesTheStatusLine(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		for {
			conn, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			_, _ = io.WriteString(conn, "HTTP/1.1 404 "+controls+"\r\nContent-Length: 0\r\n\r\n")
			_ = conn.Close()
		}
	}()
	code, stdout, stderr := run(t, nil, "tail", "--url", "http://"+server.Addr().String())
	if code != 1 || stdout != "" || !strings.Contains(stderr, `\u001b[2Jb\u007fc\u009b1m`) {
		t.Errorf("got %d, %q, %q, want 1, no output, and the status line with escapes", code, stdout, stderr)
	}
	checkPrintable(t, "the error", stderr)
}

// An id with control characters cannot be sent back to the hub. tail ends with an error instead of trying for ever.
func TestTailRefusesAnIDWithControlCharacters(t *testing.T) {
	t.Parallel()
	for _, id := range []string{"1\x1b[2J", "1\u009b2J", "1\x7f"} {
		url := script(t, streamOf("retry: 1\n\nid: "+id+"\ndata: 1\n\n"))
		code, stdout, stderr := run(t, nil, "tail", "--json", "--url", url)
		want := "rowcast: the id of the last event contains control characters, so the stream cannot be resumed\n"
		if code != 1 || !strings.HasSuffix(stderr, want) {
			t.Errorf("%q: got %d, %q, want 1 and %q at the end", id, code, stderr, want)
		}
		checkPrintable(t, "the output", stdout+stderr)
	}
}

// --count counts rows, messages and the hub's events that take the place of a row. It does not count the other events
// of the hub, which --verbose shows.
func TestTailCountsRows(t *testing.T) {
	t.Parallel()
	const sent = "event: rowcast.hello\ndata: {}\n\nevent: rowcast.beat\ndata: {}\n\nid: 1\ndata: 1\n\n" +
		"id: 2\nevent: rowcast.toolarge\ndata: {}\n\nid: 3\nevent: rowcast.unreadable\ndata: {}\n\nid: 4\ndata: 4\n\n"
	for _, tt := range []struct {
		args []string
		want int // lines
	}{
		{[]string{"--count", "1"}, 1},
		{[]string{"--count", "1", "--verbose"}, 3},
		{[]string{"--count", "3", "--verbose"}, 5},
	} {
		code, stdout, stderr := run(t, nil, append([]string{"tail", "--url", script(t, streamOf(sent))}, tt.args...)...)
		if code != 0 || len(lines(stdout)) != tt.want {
			t.Errorf("%v: got %d, %q, %q, want 0 and %d lines", tt.args, code, stdout, stderr, tt.want)
		}
	}
}
