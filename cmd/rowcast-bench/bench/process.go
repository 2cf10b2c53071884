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

// A process is a child process.
type process struct {
	name   string
	cmd    *exec.Cmd
	stdin  io.WriteCloser
	out    *json.Decoder
	stderr *stderrLines
	ended  chan struct{}
}

// spawn starts a program as a child process that uses a database.
func (b *Bench) spawn(ctx context.Context, program, name, dsn string, args ...string) (*process, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = childEnvironment(os.Environ(), dsn)
	// Ctrl-C must not reach the child processes. The parent ends them.
	cmd.SysProcAttr = ownGroup()
	p := &process{name: name, cmd: cmd, stderr: newStderrLines(), ended: make(chan struct{})}
	cmd.Stderr = p.stderr
	// Wait would close a pipe of StdoutPipe, perhaps before the last answer has been read. It does not close a pipe of
	// os.Pipe. The garbage collector closes the reading end.
	stdout, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdout = out
	p.out = json.NewDecoder(bufio.NewReader(stdout))
	if p.stdin, err = cmd.StdinPipe(); err == nil {
		// When ctx ends, stdin is closed. A process that still runs 5 s later is killed.
		cmd.Cancel, cmd.WaitDelay = p.stdin.Close, 5*time.Second
		err = cmd.Start()
	}
	out.Close()
	if err != nil {
		stdout.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait()
		p.stderr.end()
		close(p.ended)
	}()
	return p, nil
}

// childEnvironment returns the environment of a child process, without variables that set flags of rowcast. dsn is
// passed in the environment, because all users of the machine can see command lines.
func childEnvironment(environment []string, dsn string) []string {
	child := []string{"DATABASE_URL=" + dsn}
	for _, variable := range environment {
		if !strings.HasPrefix(variable, "ROWCAST_") && !strings.HasPrefix(variable, "DATABASE_URL=") {
			child = append(child, variable)
		}
	}
	return child
}

// child starts a child process with one of the roles in the map roles, such as "clients". dsn is the database that the
// process uses.
func (b *Bench) child(ctx context.Context, role, dsn string) (*process, error) {
	return b.spawn(ctx, b.Program, role, dsn, ChildArgument, role)
}

// call sends a command to a child process and returns the result. do is the name of the command, and with is its
// argument.
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
	return fmt.Errorf("%s, %s: %w: %s", p.name, do, err, p.stderr)
}

// awaitLine waits until the child process has written a line with text to stderr, and returns the line. It fails if the
// process ends before that.
func (p *process) awaitLine(text string) (line string, err error) {
	if line, ok := p.stderr.await(text); ok {
		return line, nil
	}
	return "", fmt.Errorf("%s has ended: %s", p.name, p.stderr)
}

// end ends a child process by closing its stdin. After 10 s it kills the process.
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

// stderrLines has the last 20 lines that a child process has written to stderr. Error messages about the process
// contain these lines.
type stderrLines struct {
	mu    sync.Mutex
	lines []string
	rest  []byte
	ended bool
	grown *sync.Cond
}

func newStderrLines() *stderrLines {
	w := new(stderrLines)
	w.grown = sync.NewCond(&w.mu)
	return w
}

func (w *stderrLines) Write(p []byte) (int, error) {
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

func (w *stderrLines) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	w.grown.Broadcast()
}

func (w *stderrLines) await(text string) (string, bool) {
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

func (w *stderrLines) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines, " / ")
}

// errUnmeasured reports that the operating system or the location of the server does not allow a measurement.
var errUnmeasured = errors.New("not measured on this system")
