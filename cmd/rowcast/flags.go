package main

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// flagGroups are the groups of flags in the help, with their headings.
var flagGroups = []kong.Group{
	{Key: "database", Title: "Database:"},
	{Key: "http", Title: "HTTP:"},
	{Key: "auth", Title: "Authentication (give one of: tokens, --auth-url, --insecure-uid; --public may be given in addition, or alone):"},
	{Key: "streams", Title: "Streams:"},
	{Key: "log", Title: "Log:"},
}

// environment gives every flag except --help and --version an environment variable, such as ROWCAST_LISTEN for
// --listen. The help shows the names. The values come from getenv instead of the environment of the process, so that a
// test can run the whole program. An empty variable is ignored.
func environment(getenv func(string) string) kong.Option {
	names := make(map[*kong.Value][]string)
	return kong.OptionFunc(func(k *kong.Kong) error {
		options := []kong.Option{
			kong.DefaultEnvars("ROWCAST"),
			kong.PostBuild(func(k *kong.Kong) error { return kong.Visit(k.Model, takeVariables(names)) }),
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

// takeVariables moves the names of the variables from kong to names. Otherwise kong would read the variables itself.
func takeVariables(names map[*kong.Value][]string) kong.Visitor {
	return func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok && flag.Name != "help" && flag.Name != "version" {
			names[flag.Value] = slices.Clone(flag.Envs)
			flag.Envs, flag.Tag.Envs = nil, nil
		}
		return next(nil)
	}
}

// lookUp returns the value of a flag from the environment, or nil if none of its variables has a value. It also decodes
// the value, so that the error for a wrong value names the variable.
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

// joinNegative writes "--flag -1" as "--flag=-1". Otherwise kong reads -1 as a flag.
func joinNegative(args []string) (joined []string) {
	for _, arg := range args {
		last := len(joined) - 1
		if last >= 0 && strings.HasPrefix(joined[last], "--") && !strings.Contains(joined[last], "=") && negative.MatchString(arg) {
			joined[last] += "=" + arg
		} else {
			joined = append(joined, arg)
		}
	}
	return joined
}

var negative = regexp.MustCompile(`^-[0-9.]`)

// Validate refuses a flag with an empty value. A shell passes an empty value for an unset variable, as in
// --jwt-audience "$AUD", and an empty audience must not allow every audience. An empty environment variable is not
// refused: it is ignored, as if it were not set.
func (*commandLine) Validate(ctx *kong.Context) error {
	for _, path := range ctx.Path {
		if path.Flag == nil || path.Flag.IsBool() {
			continue
		}
		switch target := path.Flag.Target; target.Kind() {
		case reflect.String, reflect.Slice:
			if target.Len() == 0 {
				return fmt.Errorf("--%s: the value is empty", path.Flag.Name)
			}
		}
	}
	return nil
}
