package main

import (
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
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

// webURL is a URL of HTTP. No error shows it: it may have a password in it, or a key in its query.
type webURL url.URL

// UnmarshalText refuses what nothing could be asked at.
func (u *webURL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	switch {
	case !strings.Contains(string(text), "://") || err == nil && parsed.Scheme != "http" && parsed.Scheme != "https":
		return errors.New("this does not begin with http:// or https://, as http://127.0.0.1:3000/path and https://app.example.com/path do")
	case err != nil || parsed.Hostname() == "":
		return errors.New("this is not a URL such as https://app.example.com/path; special characters in it must be percent-encoded")
	case strings.Contains(string(text), "#"):
		return errors.New("leave out what begins with #, which is never sent; where # is part of a name, write %23")
	}
	*u = webURL(*parsed)
	return nil
}

// origin is a browser's name for where a page comes from, exactly as it sends it.
type origin string

// UnmarshalText refuses what no browser sends, and "null", which any sandboxed page can.
func (o *origin) UnmarshalText(text []byte) error {
	name := string(text)
	u, err := url.Parse(name)
	switch {
	case strings.Contains(name, "*"):
		return errors.New(`streams are sent with credentials, so every origin must be named: "*" is refused`)
	case strings.EqualFold(name, "null"):
		return errors.New(`any page can have the origin "null": it is refused`)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
		return errors.New("an origin is scheme and host, such as https://app.example.com, with the port if it is not the usual one")
	case strings.Trim(strings.ToLower(u.Hostname()), asciiHost) != "":
		return fmt.Errorf("%q: browsers send a name like this in ASCII (xn--…), and so must you", u.Hostname())
	case name != asSent(u):
		return fmt.Errorf("browsers send this origin as %q, and so must you", asSent(u))
	}
	*o = origin(name)
	return nil
}

const asciiHost = "abcdefghijklmnopqrstuvwxyz0123456789-_.:"

// asSent is how a browser writes the origin of a URL: in lower case, without the usual port, and nothing behind that (RFC 6454, 6.2).
func asSent(u *url.URL) string {
	host := strings.ToLower(u.Hostname())
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port := strings.TrimLeft(u.Port(), "0"); port != "" && u.Scheme+port != "http80" && u.Scheme+port != "https443" {
		host += ":" + port
	}
	return u.Scheme + "://" + host
}

// joined writes "--flag -1" as "--flag=-1": kong takes what begins with a hyphen for a flag, and none of ours is a number.
func joined(args []string) (all []string) {
	for _, arg := range args {
		last := len(all) - 1
		if last >= 0 && strings.HasPrefix(all[last], "--") && !strings.Contains(all[last], "=") && negative.MatchString(arg) {
			all[last] += "=" + arg
		} else {
			all = append(all, arg)
		}
	}
	return all
}

var negative = regexp.MustCompile(`^-[0-9.]`)

// Validate refuses a flag of any command that is given nothing, as by a shell whose variable is not set: --jwt-audience "$AUD" must
// not take any. An empty variable of ours is the way to say that there is none.
func (*commandLine) Validate(ctx *kong.Context) error {
	for _, path := range ctx.Path {
		if path.Flag == nil || path.Flag.IsBool() {
			continue
		}
		switch target := path.Flag.Target; target.Kind() {
		case reflect.String, reflect.Slice:
			if target.Len() == 0 {
				return fmt.Errorf("--%s: it is given, but nothing with it", path.Flag.Name)
			}
		}
	}
	return nil
}
