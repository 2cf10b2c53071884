package private_test

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"rowcast/cmd/internal/private"
)

// TestIsTerminal shows that /dev/null, a character device like a terminal, is not a terminal.
func TestIsTerminal(t *testing.T) {
	t.Parallel()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if private.IsTerminal(null) {
		t.Errorf("IsTerminal returned true for %s, want false", os.DevNull)
	}
}

// TestDownloadProgress shows that a log file gets a line at the start of a download, and one for each tenth of it.
func TestDownloadProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := private.NewProgress(&out)
	const total = 30_000_000
	for i := range int64(301) {
		p.Download(total*i/300, total)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 11 || !strings.HasSuffix(out.String(), "30 MB of 30 (100 %)\n") {
		t.Errorf("got %d lines, want 11, and the last line for 100 %%; the output is:\n%s", lines, &out)
	}
}
