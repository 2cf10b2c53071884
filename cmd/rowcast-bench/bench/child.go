package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// A command is what a child process is told, one JSON object a line.
type command struct {
	Do   string
	With json.RawMessage
}

// An answer follows each command.
type answer struct {
	Error  string `json:",omitempty"`
	Result json.RawMessage
}

// deeds are what a child can be told to do.
type deeds map[string]func(ctx context.Context, with json.RawMessage) (any, error)

// deed makes one of a function with an argument.
func deed[With, Result any](do func(context.Context, With) (Result, error)) func(context.Context, json.RawMessage) (any, error) {
	return func(ctx context.Context, raw json.RawMessage) (any, error) {
		var with With
		if err := json.Unmarshal(raw, &with); err != nil {
			return nil, err
		}
		return do(ctx, with)
	}
}

// ChildArgument is the first argument of the benchmark's own processes. The second is the role.
const ChildArgument = "child"

// roles are the roles of processes that take commands. Another role is the hub.
var roles = map[string]func(ctx context.Context) (deeds, error){
	"naive":   newNaive,
	"clients": newClients,
	"writers": newWriters,
	"fanout":  newFanout,
}

// Child runs a process of the benchmark until stdin ends, which the parent holds open. args has the role and its flags.
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
		return fmt.Errorf("no such role: %q is none of %q", role, slices.Sorted(maps.Keys(roles)))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	can, err := begin(ctx)
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
		if err := answers.Encode(can.do(ctx, c)); err != nil {
			return err
		}
	}
}

func (d deeds) do(ctx context.Context, c command) answer {
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

// untilEnd returns a context that ends when stdin does.
func untilEnd(ctx context.Context, stdin io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		cancel()
	}()
	return ctx
}

// nothing is what a command without an argument, or without a result, has.
type nothing struct{}
