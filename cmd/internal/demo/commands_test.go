package demo_test

import (
	"os/exec"
	"testing"

	"rowcast/cmd/internal/demo"
)

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"plain", "", "two words", "it's", `$HOME "x" \ !`, "a\nb", "*", "~"} {
		got, err := exec.Command("sh", "-c", "printf %s "+demo.ShellQuote(want)).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s is %q to a shell (%v), want %q", demo.ShellQuote(want), got, err, want)
		}
	}
}
