package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// A process is a child: what is measured has one of its own, so that its CPU and memory are told apart.
type process struct {
	name  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *json.Decoder
	words *words
	ended chan struct{}
}

// spawn starts this program again as a child on a database.
func (b *Bench) spawn(ctx context.Context, name, dsn string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, b.Program, args...)
	cmd.Env = childEnvironment(os.Environ(), dsn)
	// Ctrl-C is for the parent, which ends its children in turn.
	cmd.SysProcAttr = ownGroup()
	p := &process{name: name, cmd: cmd, words: newWords(), ended: make(chan struct{})}
	cmd.Stderr = p.words
	stdout, out, err := os.Pipe() // not StdoutPipe, which Wait closes
	if err != nil {
		return nil, err
	}
	cmd.Stdout = out
	p.out = json.NewDecoder(bufio.NewReader(stdout))
	if p.stdin, err = cmd.StdinPipe(); err == nil {
		err = cmd.Start()
	}
	out.Close()
	if err != nil {
		stdout.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait()
		p.words.end()
		stdout.Close()
		close(p.ended)
	}()
	return p, nil
}

// childEnvironment leaves out what would set the hub's flags. The database is not on the command line, where all users see it.
func childEnvironment(environment []string, dsn string) []string {
	child := []string{"DATABASE_URL=" + dsn}
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "ROWCAST_") && !strings.HasPrefix(variable, "DATABASE_URL=") {
			child = append(child, variable)
		}
	}
	return child
}

// child starts one in a role.
func (b *Bench) child(ctx context.Context, role, dsn string) (*process, error) {
	return b.spawn(ctx, role, dsn, ChildArgument, role)
}

// call tells a child to do something and returns what it answers.
func call[Result any](p *process, do string, with any) (result Result, err error) {
	raw, err := json.Marshal(with)
	if err != nil {
		return result, err
	}
	if err := json.NewEncoder(p.stdin).Encode(command{do, raw}); err != nil {
		return result, p.explain(do, err)
	}
	var a answer
	if err := p.out.Decode(&a); err != nil {
		return result, p.explain(do, err)
	}
	if a.Error != "" {
		return result, fmt.Errorf("%s, %s: %s", p.name, do, a.Error)
	}
	return result, json.Unmarshal(a.Result, &result)
}

func (p *process) explain(do string, err error) error {
	select {
	case <-p.ended:
	case <-time.After(time.Second):
	}
	return fmt.Errorf("%s, %s: %w: %s", p.name, do, err, p.words)
}

// awaitWords returns when a child has written a line with this in it.
func (p *process) awaitWords(text string) (line string, err error) {
	if line, ok := p.words.await(text); ok {
		return line, nil
	}
	return "", fmt.Errorf("%s has ended: %s", p.name, p.words)
}

// end ends a child by closing its stdin; what does not heed that is killed.
func (p *process) end() {
	if p == nil {
		return
	}
	p.stdin.Close()
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// words are what a child writes to stderr: its last lines say why it has ended.
type words struct {
	mu    sync.Mutex
	lines []string
	rest  []byte
	ended bool
	grown *sync.Cond
}

func newWords() *words {
	w := new(words)
	w.grown = sync.NewCond(&w.mu)
	return w
}

func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	for {
		line, rest, found := bytes.Cut(w.rest, []byte("\n"))
		if !found {
			break
		}
		w.lines, w.rest = append(w.lines, string(line)), rest
	}
	w.lines = w.lines[max(0, len(w.lines)-20):]
	w.grown.Broadcast()
	return len(p), nil
}

func (w *words) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.grown.Broadcast()
}

func (w *words) await(text string) (string, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		for _, line := range w.lines {
			if strings.Contains(line, text) {
				return line, true
			}
		}
		if w.ended {
			return "", false
		}
		w.grown.Wait()
	}
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, " / ")
}

// errUnmeasured is where the system does not tell.
var errUnmeasured = errors.New("not measured on this system")
