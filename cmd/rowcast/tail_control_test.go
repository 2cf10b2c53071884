package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"
)

// controls has characters that a terminal interprets: C0, DEL, C1, and marks that change the direction of the text.
const controls = "a\x1b[2Jb\x7fc\u009b1md\u0085e\u202ef"

// escaped is controls as tail prints it.
const escaped = `a\u001b[2Jb\u007fc\u009b1md\u0085e\u202ef`

// checkPrintable fails the test if text contains characters that a terminal interprets, except line feeds. what names
// the text in the failure message.
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

// tail leaves out a created_at that RFC 3339 cannot express, such as one in the year 10000, and prints the rest of the
// event.
func TestTailPrintsNoTimeThatRFC3339Lacks(t *testing.T) {
	t.Parallel()
	var sent strings.Builder
	want := []string{"0001-01-01T00:00:00.001Z", "9999-12-31T23:59:59.999Z", "0000-01-01T00:00:00Z", "", ""}
	for _, at := range []time.Time{
		time.Date(1, 1, 1, 0, 0, 0, 1e6, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999e6, time.UTC), time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 12, 31, 23, 59, 59, 999e6, time.UTC),
	} {
		fmt.Fprintf(&sent, "time: %d\ndata: 1\n\n", at.UnixMilli())
	}
	code, stdout, stderr := run(t, nil, "tail", "--json", "--count", "5", "--url", script(t, streamOf(sent.String())))
	if code != 0 || len(lines(stdout)) != len(want) {
		t.Fatalf("got %d, %q, %q, want 0 and %d lines", code, stdout, stderr, len(want))
	}
	for i, line := range lines(stdout) {
		if found := strings.Contains(line, `"created_at":"`+want[i]+`"`); found != (want[i] != "") || !found && strings.Contains(line, "created_at") {
			t.Errorf("got %s, want created_at %q (left out if empty)", line, want[i])
		}
	}
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

// --count counts rows, messages and the hub's events that take the place of a row. It does not count the hub's other
// events. --verbose prints those too, except rowcast.void.
func TestTailCountsRows(t *testing.T) {
	t.Parallel()
	const sent = "event: rowcast.void\ndata: {}\n\nevent: rowcast.hello\ndata: {}\n\nevent: rowcast.beat\ndata: {}\n\ndata: 1\nid: 1\n\n" +
		"event: rowcast.toolarge\ndata: {}\nid: 2\n\nevent: rowcast.unreadable\ndata: {}\nid: 3\n\ndata: 4\nid: 4\n\n"
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
