// Package flags decodes the flags of a command line and their environment variables, with kong. Its types refuse values
// that would fail later. Its errors say what to write instead.
package flags

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// Options returns the options of kong for all commands: the ranges of numbers, durations and sizes, and the environment
// variables of the flags.
func Options(getenv func(string) string) kong.Option {
	return options(ranges(), environment(getenv))
}

// options applies several options in their order.
func options(all ...kong.Option) kong.Option {
	return kong.OptionFunc(func(k *kong.Kong) error {
		for _, option := range all {
			if err := option.Apply(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// environment gives every flag except --help and --version an environment variable, such as ROWCAST_LISTEN for
// --listen. The help shows the names. The values come from getenv instead of the environment of the process, so that a
// test can run the whole program. An empty variable is ignored.
func environment(getenv func(string) string) kong.Option {
	names := make(map[*kong.Value][]string)
	return options(
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
	)
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
		value = trimList(flag, value)
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

// trimList removes the spaces around each text of a list. A flag that is not a list keeps its value.
func trimList(flag *kong.Flag, value string) string {
	if !isList(flag) {
		return value
	}
	separator := string(flag.Tag.Sep)
	texts := strings.Split(value, separator)
	for i, text := range texts {
		texts[i] = strings.TrimSpace(text)
	}
	return strings.Join(texts, separator)
}

// isList reports whether one value of a flag may have several texts.
func isList(flag *kong.Flag) bool { return flag.Target.Kind() == reflect.Slice && flag.Tag.Sep > 0 }

// JoinNegative writes "--flag -1" as "--flag=-1". Otherwise kong reads -1 as a flag.
func JoinNegative(args []string) (joined []string) {
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

// RefuseEmpty refuses a flag with an empty value. A shell passes an empty value for an unset variable, as in
// --jwt-audience "$AUD", and an empty audience must not allow every audience. An empty environment variable is not
// refused: it is ignored, as if it were not set. RefuseEmpty also refuses a list with a text that is empty, or that has a
// space at its beginning or end.
func RefuseEmpty(ctx *kong.Context) error {
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
		if err := checkList(path.Flag); err != nil {
			return err
		}
	}
	return nil
}

func checkList(flag *kong.Flag) error {
	if !isList(flag) || flag.Target.Type().Elem().Kind() != reflect.String {
		return nil
	}
	for i := range flag.Target.Len() {
		switch text := flag.Target.Index(i).String(); {
		case text == "":
			return fmt.Errorf("--%s: the list has an empty value", flag.Name)
		case text != strings.TrimSpace(text):
			return fmt.Errorf("--%s: remove the space at the beginning or end of %q", flag.Name, text)
		}
	}
	return nil
}

// Source returns the name of a flag. If its value comes from an environment variable, it also returns the name of the
// variable.
func Source(path *kong.Path) string {
	name := "--" + path.Flag.Name
	if path.Resolved {
		name += " (from $ROWCAST_" + strings.ToUpper(strings.ReplaceAll(path.Flag.Name, "-", "_")) + ")"
	}
	return name
}

// Explain adds to an error of parser.Parse what the user must write instead.
func Explain(parser *kong.Kong, err error) error { return withCommands(parser, withValue(err)) }

// noValue matches kong's error for a flag that needs a value, but is the last argument or is followed by another flag.
var noValue = regexp.MustCompile(`^(--[a-z-]+)(?:=\S+)?: (?:expected .* value but got |missing value, expecting )`)

// withValue replaces kong's error for a flag without a value by an error that shows how to write the flag.
func withValue(err error) error {
	failed, ok := errors.AsType[*kong.ParseError](err)
	if !ok {
		return err
	}
	found := noValue.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	name, example := found[1], "VALUE"
	for _, flag := range failed.Context.Flags() {
		if "--"+flag.Name == name {
			example = strings.TrimSuffix(flag.FormatPlaceHolder(), ",...")
		}
	}
	return fmt.Errorf("%s needs a value, as in %s %s", name, name, example)
}

// withCommands adds the names of the commands to the error of a command line in which kong has found no command, unless
// kong has suggested a similar name.
func withCommands(parser *kong.Kong, err error) error {
	failed, ok := errors.AsType[*kong.ParseError](err)
	if !ok || failed.Context.Selected() != nil || strings.Contains(err.Error(), "did you mean") {
		return err
	}
	var names []string
	for _, command := range parser.Model.Children {
		names = append(names, command.Name)
	}
	return fmt.Errorf("%w; the commands are %s, and rowcast --help explains them", err, strings.Join(names, ", "))
}
