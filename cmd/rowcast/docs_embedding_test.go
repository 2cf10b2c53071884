package main_test

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// The program in stream/README.md builds in another module, which finds rowcast by replace, and serves a stream.
func TestEmbeddingInAnotherModule(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	program := buildElsewhere(t, strings.Replace(embeddingProgram(t), "127.0.0.1:8080", address, 1))
	startProgram(t, program, "DATABASE_URL="+dbtest.Database(t))

	hello := regexp.MustCompile(`event: rowcast.hello\ndata: {"recipients":\["alice","team:7"\]`)
	waitFor(t, "a stream of the program", func() bool {
		return hello.MatchString(beginOfStream(t, "http://"+address+"/events"))
	})
}

// beginOfStream returns what arrives of a stream first, or "" if nothing can be opened.
func beginOfStream(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(dbtest.Context(t), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	begin := make([]byte, 1<<10)
	n, _ := response.Body.Read(begin)
	return string(begin[:n])
}

func embeddingProgram(t *testing.T) string {
	t.Helper()
	readme, err := os.ReadFile("../../stream/README.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```go\n(package main\n.*?)```").FindSubmatch(readme)
	if found == nil {
		t.Fatal("stream/README.md has no whole program")
	}
	return string(found[1])
}

// buildElsewhere builds a program in a new module, and returns its path. The module uses rowcast's go.sum, so no checksum is looked up.
func buildElsewhere(t *testing.T, program string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": program, "go.sum": string(sums)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, arguments := range [][]string{
		{"mod", "init", "example.com/app"},
		{"mod", "edit", "-require=rowcast@v0.0.0", "-replace=rowcast=" + root},
		{"build", "-mod=mod", "-buildvcs=false", "-o", "app"},
	} {
		command := exec.CommandContext(dbtest.Context(t), "go", arguments...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", arguments, err, out)
		}
	}
	return filepath.Join(dir, "app")
}

// startProgram starts a program. At the end of the test it is interrupted, and must then exit with 0.
func startProgram(t *testing.T, program, variable string) {
	t.Helper()
	command := exec.Command(program)
	command.Env = append(os.Environ(), variable)
	command.Stdout, command.Stderr = t.Output(), t.Output()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		defer time.AfterFunc(patience, func() { _ = command.Process.Kill() }).Stop()
		if err := command.Wait(); err != nil {
			t.Errorf("the program ended: %v", err)
		}
	})
}
