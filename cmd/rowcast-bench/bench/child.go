package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A command is sent to a child process as a line of JSON.
type command struct {
	Do   string
	With json.RawMessage
}

// An answer is what a child process sends after each command, as a line of JSON.
type answer struct {
	Error  string `json:",omitempty"`
	Result json.RawMessage
}

// actions are the functions of a child process, by the names of the commands that call them.
type actions map[string]func(ctx context.Context, with json.RawMessage) (any, error)

// action converts a function to a value of actions.
func action[With, Result any](do func(context.Context, With) (Result, error)) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var with With
		if err := json.Unmarshal(raw, &with); err != nil {
			return nil, err
		}
		return do(ctx, with)
	}
}

// ChildArgument is the first argument of a child process. The second argument is the role.
const ChildArgument = "child"

// roles are the roles of child processes that receive commands. A process with the role hub receives no commands.
var roles = map[string]func(ctx context.Context) (actions, error){
	"naive":   newNaive,
	"clients": newClients,
	"writers": newWriters,
	"fanout":  newFanout,
}

// Child is the main function of a child process of the benchmark. It returns when stdin ends. The parent keeps stdin
// open. args has the role and its flags.
func Child(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		return errors.New("the role is missing")
	}
	role := args[0]
	if role == "hub" {
		return runHub(untilEnd(ctx, stdin), args[1:], stderr)
	}
	begin, ok := roles[role]
	if !ok {
		return fmt.Errorf("no such role: %q", role)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	actions, err := begin(ctx)
	if err != nil {
		return err
	}
	commands, answers := json.NewDecoder(bufio.NewReader(stdin)), json.NewEncoder(stdout)
	for {
		var c command
		if err := commands.Decode(&c); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := answers.Encode(actions.do(ctx, c)); err != nil {
			return err
		}
	}
}

func (d actions) do(ctx context.Context, c command) answer {
	do, ok := d[c.Do]
	if !ok {
		return answer{Error: fmt.Sprintf("no such command: %q", c.Do)}
	}
	result, err := do(ctx, c.With)
	if err != nil {
		return answer{Error: err.Error()}
	}
	raw, err := json.Marshal(result)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Result: raw}
}

// untilEnd returns a context that ends when stdin ends.
func untilEnd(ctx context.Context, stdin io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	return ctx
}

// nothing is the type of an argument or result that has no value.
type nothing struct{}
