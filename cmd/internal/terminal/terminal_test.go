package terminal_test

import (
	"errors"
	"os/exec"
	"testing"

	"rowcast/cmd/internal/terminal"
)

// TestPrintable shows that a printed text cannot move the cursor, change the direction of writing or begin a new line.
func TestPrintable(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"plain é text\r\n": "plain é text",
		"a\x1b[2Jb":        `a\u001b[2Jb`,
		"a\nb\tc":          `a\u000ab\u0009c`,
		"a\u009bb\x7f":     `a\u009bb\u007f`,
		"a\u202eb\u2028":   `a\u202eb\u2028`,
		"a\xffb":           "a\ufffdb",
	} {
		if got := terminal.Printable(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if terminal.HasControl(terminal.Printable(text)) {
			t.Errorf("Printable(%q) contains a control character", text)
		}
	}
	if got, want := terminal.OneLine(errors.New("a\n\tb \x1b")), `a b \u001b`; got != want {
		t.Errorf("OneLine: got %q, want %q", got, want)
	}
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"plain", "", "two words", "it's", `$HOME "x" \ !`, "a\nb", "*", "~"} {
		got, err := exec.Command("sh", "-c", "printf %s "+terminal.ShellQuote(want)).Output()
		if err != nil || string(got) != want {
			t.Errorf("a shell reads %s as %q (error %v), want %q", terminal.ShellQuote(want), got, err, want)
		}
	}
}
