package main

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// environment gives every flag an environment variable: --listen is ROWCAST_LISTEN. It takes kong's names but asks getenv and
// not the process, so that a test can start the program whole. An empty variable counts as none.
func environment(getenv func(string) string) kong.Option {
	names := make(map[*kong.Value][]string)
	return kong.OptionFunc(func(k *kong.Kong) error {
		options := []kong.Option{
			kong.DefaultEnvars("ROWCAST"),
			kong.PostBuild(func(k *kong.Kong) error { return kong.Visit(k.Model, takeNames(names)) }),
			kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
				return lookUp(flag, names[flag.Value], getenv)
			})),
			kong.ValueFormatter(func(value *kong.Value) string {
				if len(names[value]) == 0 {
					return value.Help
				}
				return strings.TrimSuffix(value.Help, ".") + " ($" + strings.Join(names[value], ", $") + ")."
			}),
		}
		for _, option := range options {
			if err := option.Apply(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// takeNames takes the variables' names away from kong, which would read them itself.
func takeNames(names map[*kong.Value][]string) kong.Visitor {
	return func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Name != "help" && flag.Name != "version" {
			names[flag.Value] = slices.Clone(flag.Envs)
			flag.Envs, flag.Tag.Envs = nil, nil
		}
		return next(nil)
	}
}

// lookUp returns the flag's value from the environment. It is tried here, so that an error names the variable.
func lookUp(flag *kong.Flag, names []string, getenv func(string) string) (any, error) {
	for _, name := range names {
		value := getenv(name)
		if value == "" {
			continue
		}
		scan := kong.Scan().PushTyped(value, kong.FlagValueToken)
		target := reflect.New(flag.Target.Type()).Elem()
		if target.Kind() == reflect.Pointer {
			target.Set(reflect.New(target.Type().Elem()))
		}
		if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: scan}, target); err != nil {
			return nil, fmt.Errorf("from $%s: %w", name, err)
		}
		return value, nil
	}
	return nil, nil
}
