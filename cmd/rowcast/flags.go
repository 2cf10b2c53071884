package main

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// flagGroups are the headings in the help of commands with many flags.
var flagGroups = []kong.Group{
	{Key: "database", Title: "Database:"},
	{Key: "http", Title: "HTTP:"},
	{Key: "auth", Title: "Who may listen (one of: tokens, --auth-url, --insecure-uid):"},
	{Key: "streams", Title: "Streams:"},
	{Key: "log", Title: "Log:"},
}

// byteSize is a number of bytes, written with or without a unit: 512, 64KiB, 16MiB, 1GiB (K, M and G mean the same).
type byteSize int

// sizeUnits is in the order in which they are tried, as B ends them all.
var sizeUnits = []struct {
	name  string
	bytes float64
}{
	{"KiB", 1 << 10},
	{"MiB", 1 << 20},
	{"GiB", 1 << 30},
	{"kB", 1e3},
	{"KB", 1e3},
	{"MB", 1e6},
	{"GB", 1e9},
	{"K", 1 << 10},
	{"M", 1 << 20},
	{"G", 1 << 30},
	{"B", 1},
	{"", 1},
}

// UnmarshalText reads a size above zero.
func (s *byteSize) UnmarshalText(text []byte) error {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(string(text), unit.name)
		if !ok {
			continue
		}
		number, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
		if err != nil || !(number > 0) || number*unit.bytes < 1 || number*unit.bytes > math.MaxInt/2 {
			break
		}
		*s = byteSize(number * unit.bytes)
		return nil
	}
	return fmt.Errorf("%q is not a size such as 64KiB, 16MiB or 1GiB", text)
}

// insecureUID says whether ?uid= is trusted: not at all, by a hub that only this machine can reach, or anywhere.
type insecureUID string

const (
	insecureOff      insecureUID = ""
	insecureLoopback insecureUID = "loopback"
	insecureAnywhere insecureUID = "anywhere"
)

// IsBool lets the flag stand without a value.
func (insecureUID) IsBool() bool { return true }

// Decode reads the value after "=", if there is one.
func (i *insecureUID) Decode(ctx *kong.DecodeContext) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		*i = insecureLoopback
		return nil
	}
	switch value := fmt.Sprint(ctx.Scan.Pop().Value); value {
	case "anywhere":
		*i = insecureAnywhere
	case "true", "1", "yes", "loopback":
		*i = insecureLoopback
	case "false", "0", "no":
		*i = insecureOff
	default:
		return fmt.Errorf(`%q: it takes no value, or "anywhere"`, value)
	}
	return nil
}

// origin is a browser's name for where a page comes from, exactly as it sends it.
type origin string

// UnmarshalText refuses what no browser sends, and "null", which any sandboxed page can.
func (o *origin) UnmarshalText(text []byte) error {
	name := string(text)
	u, err := url.Parse(name)
	switch {
	case name == "*" || strings.Contains(name, "*"):
		return errors.New(`streams are sent with credentials, so every origin must be named: "*" is refused`)
	case name == "null":
		return errors.New(`any page can have the origin "null": it is refused`)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Scheme+"://"+u.Host != strings.ToLower(name):
		return fmt.Errorf("%q is not an origin such as https://app.example.com: scheme and host, with the port if it is not the usual one, and nothing else", name)
	case u.Scheme == "http" && u.Port() == "80" || u.Scheme == "https" && u.Port() == "443":
		return fmt.Errorf("%q: browsers leave out the usual port, and so must you", name)
	case strings.Trim(u.Hostname(), asciiHost) != "":
		return fmt.Errorf("%q: browsers send a name like this in ASCII (xn--…), and so must you", name)
	}
	*o = origin(strings.ToLower(name))
	return nil
}

const asciiHost = "abcdefghijklmnopqrstuvwxyz0123456789-_.:"
