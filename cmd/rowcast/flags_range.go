package main

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// ranges reads every flag that is a number, a duration or a size, and refuses a value outside of the range in the flag's tags:
// min:"1ms" max:"24h". A flag without these tags is an error, so that no value can overflow behind the command line.
func ranges() kong.Option {
	return kong.OptionFunc(func(k *kong.Kong) error {
		for _, option := range []kong.Option{
			kong.TypeMapper(reflect.TypeFor[time.Duration](), within(parseDuration)),
			kong.TypeMapper(reflect.TypeFor[byteSize](), within(parseSize)),
			kong.TypeMapper(reflect.TypeFor[int](), within(parseInt)),
		} {
			if err := option.Apply(k); err != nil {
				return err
			}
		}
		return nil
	})
}

// within returns a mapper for values that parse reads, of which the flag's tags name the lowest and the highest.
func within(parse func(text string) (int64, error)) kong.Mapper {
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("value", &text); err != nil {
			return err
		}
		value, err := parse(text)
		if err != nil {
			return err
		}
		lowest, highest := ctx.Value.Tag.Get("min"), ctx.Value.Tag.Get("max")
		low, err := parse(lowest)
		if err != nil {
			return fmt.Errorf("the flag has no tag min: %w", err)
		}
		high, err := parse(highest)
		if err != nil {
			return fmt.Errorf("the flag has no tag max: %w", err)
		}
		if value < low || value > high || target.OverflowInt(value) {
			return fmt.Errorf("%s is not from %s to %s", text, lowest, highest)
		}
		target.SetInt(value)
		return nil
	})
}

// parseInt reads a whole number. One that is too large for an int64 becomes the largest, which is in no range.
func parseInt(text string) (int64, error) {
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) {
		return 0, fmt.Errorf("%q is not a whole number", text)
	}
	return n, nil
}

const decimal = `([0-9]+\.?[0-9]*|\.[0-9]+)`

var (
	plainNumber   = regexp.MustCompile(`^[+-]?` + decimal + `$`)
	durationPart  = regexp.MustCompile(decimal + `(ns|us|µs|ms|s|m|h|d)`)
	wholeDuration = regexp.MustCompile(`^[+-]?(` + durationPart.String() + `)+$`)
)

// durationUnits are those of time.ParseDuration, and days.
var durationUnits = map[string]time.Duration{
	"ns": time.Nanosecond,
	"us": time.Microsecond,
	"µs": time.Microsecond,
	"ms": time.Millisecond,
	"s":  time.Second,
	"m":  time.Minute,
	"h":  time.Hour,
	"d":  24 * time.Hour,
}

// parseDuration reads a duration such as 500ms, 15s, 1h30m or 7d. One that is too long for an int64 becomes the longest.
func parseDuration(text string) (int64, error) {
	switch {
	case text == "0":
		return 0, nil
	case plainNumber.MatchString(text):
		return 0, fmt.Errorf("%[1]s has no unit: write %[1]ss, %[1]sm, %[1]sh or %[1]sd", text)
	case !wholeDuration.MatchString(text):
		return 0, fmt.Errorf("%q is not a duration such as 500ms, 15s, 12h or 7d", text)
	}
	sum := 0.0
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		number, _ := strconv.ParseFloat(part[1], 64) // infinite where it is too large
		sum += number * float64(durationUnits[part[2]])
	}
	if text[0] == '-' {
		sum = -sum
	}
	return clamp(sum), nil
}

// clamp returns n as an int64, the nearest one if it is out of range.
func clamp(n float64) int64 {
	switch {
	case n >= math.MaxInt64:
		return math.MaxInt64
	case n <= math.MinInt64:
		return math.MinInt64
	}
	return int64(n)
}

// byteSize is a number of bytes, written with a unit: 64KiB, 16MiB, 1GiB.
type byteSize int

// sizeUnits is in the order in which they are tried, as B ends most of them.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"TiB", 1 << 40},
	{"PiB", 1 << 50},
	{"EiB", 1 << 60},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"TB", 1e12},
	{"K", 1 << 10},
	{"M", 1 << 20},
	{"G", 1 << 30},
	{"T", 1 << 40},
	{"B", 1},
}

// parseSize reads a size with its unit.
func parseSize(text string) (int64, error) {
	if plainNumber.MatchString(text) {
		return 0, fmt.Errorf("%[1]s has no unit: write %[1]sKiB, %[1]sMiB or %[1]sGiB", text)
	}
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		digits = strings.TrimSpace(digits)
		if !plainNumber.MatchString(digits) {
			break
		}
		number, _ := strconv.ParseFloat(digits, 64) // infinite where it is too large
		return clamp(number * unit.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size such as 64KiB, 16MiB or 1GiB", text)
}
