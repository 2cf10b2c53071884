package flags

import (
	"errors"
	"fmt"
	"math"
	"net/url"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/alecthomas/kong"
)

// ranges decodes each flag of the type int, time.Duration or Size. It refuses values outside the range in the
// flag's tags, such as min:"1ms" max:"24h". A flag without these tags is an error, so that no value can overflow in the
// rest of the program.
func ranges() kong.Option {
	return options(
		kong.TypeMapper(reflect.TypeFor[time.Duration](), inRange(parseDuration)),
		kong.TypeMapper(reflect.TypeFor[Size](), inRange(parseSize)),
		kong.TypeMapper(reflect.TypeFor[int](), inRange(parseInt)),
	)
}

// inRange returns a mapper that decodes a value with parse and checks it against the tags min and max.
func inRange(parse func(text string) (int64, error)) kong.Mapper {
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
			return fmt.Errorf("the flag's tag min is missing or invalid: %w", err)
		}
		high, err := parse(highest)
		if err != nil {
			return fmt.Errorf("the flag's tag max is missing or invalid: %w", err)
		}
		if value < low || value > high || target.OverflowInt(value) {
			return fmt.Errorf("%s is not from %s to %s", text, lowest, highest)
		}
		target.SetInt(value)
		return nil
	})
}

// parseInt parses an integer. An integer outside the range of int64 becomes the nearest int64, which is in no flag's
// range.
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

// durationUnits are the units of a duration. A day (d) has 24 hours.
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

// parseDuration parses a duration such as 500ms, 15s, 1h30m or 7d, and returns nanoseconds. A duration outside the
// range of int64 becomes the nearest int64.
func parseDuration(text string) (int64, error) {
	switch {
	case text == "0":
		return 0, nil
	case plainNumber.MatchString(text):
		return 0, fmt.Errorf("%s has no unit: add ms, s, m, h or d, as in 500ms or 15s", text)
	case !wholeDuration.MatchString(text):
		return 0, fmt.Errorf("%q is not a duration such as 500ms, 15s, 12h or 7d", text)
	}
	sum := 0.0
	for _, part := range durationPart.FindAllStringSubmatch(text, -1) {
		number, _ := strconv.ParseFloat(part[1], 64) // infinity if the number is too large
		sum += number * float64(durationUnits[part[2]])
	}
	if text[0] == '-' {
		sum = -sum
	}
	return clamp(sum), nil
}

// clamp converts n to an int64. A number outside the range of int64 becomes the nearest int64.
func clamp(n float64) int64 {
	switch {
	case n >= math.MaxInt64:
		return math.MaxInt64
	case n <= math.MinInt64:
		return math.MinInt64
	}
	return int64(n)
}

// A Size is a number of bytes. On the command line it has a unit, as in 64KiB, 16MiB or 1GiB.
type Size int

// sizeUnits are the units of a size, in the order in which parseSize tries them. B is last, because most units end in
// B.
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

// parseSize parses a size with a unit, and returns bytes. A size outside the range of int64 becomes the nearest int64.
func parseSize(text string) (int64, error) {
	if plainNumber.MatchString(text) {
		return 0, fmt.Errorf("%s has no unit: add KiB, MiB or GiB, as in 64MiB", text)
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
		number, _ := strconv.ParseFloat(digits, 64) // infinity if the number is too large
		return clamp(number * unit.bytes), nil
	}
	return 0, fmt.Errorf("%q is not a size such as 64KiB, 16MiB or 1GiB", text)
}

// A URL is a URL with the scheme http or https. No error contains the URL, because it may contain a password or an
// API key.
type URL url.URL

// UnmarshalText parses a URL.
func (u *URL) UnmarshalText(text []byte) error {
	parsed, err := url.Parse(string(text))
	switch {
	case !strings.Contains(string(text), "://") || err == nil && parsed.Scheme != "http" && parsed.Scheme != "https":
		return errors.New("the URL must begin with http:// or https://, as in http://127.0.0.1:3000/path or https://app.example.com/path")
	case err != nil || parsed.Hostname() == "" || !hasPort(parsed):
		return errors.New("this is not a URL such as https://app.example.com/path; special characters in it must be percent-encoded")
	case strings.Contains(string(text), "#"):
		return errors.New("remove the fragment (# and what follows it), which is never sent; if # is part of a name, write %23")
	}
	*u = URL(*parsed)
	return nil
}

// hasPort reports whether the port of a URL, if it has one, can exist.
func hasPort(u *url.URL) bool {
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	return u.Port() == "" || err == nil && port > 0
}

// An Origin is the origin of a page, spelled as browsers send it.
type Origin string

// UnmarshalText accepts origins with the scheme http or https, spelled as browsers send them. It refuses "null", which
// any sandboxed page can send.
func (o *Origin) UnmarshalText(text []byte) error {
	name := string(text)
	u, err := url.Parse(name)
	switch {
	case strings.Contains(name, "*"):
		return errors.New(`"*" is refused: requests for streams carry the user's cookies, so each origin must be named`)
	case strings.EqualFold(name, "null"):
		return errors.New(`"null" is refused: any page can have this origin`)
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !hasPort(u):
		return fmt.Errorf("%q is not an origin: a scheme and a host, such as https://app.example.com, and the port if it is not the default", name)
	case strings.ContainsFunc(u.Hostname(), func(r rune) bool { return r > unicode.MaxASCII }):
		return fmt.Errorf("%q: browsers send this name in ASCII; write it as they do (xn--…)", u.Hostname())
	case strings.Trim(strings.ToLower(u.Hostname()), asciiHost) != "":
		return fmt.Errorf("%q is not the name of a host: it has a character that is not a letter, a digit, a hyphen, an underscore or a dot", u.Hostname())
	case name != asSent(u):
		return fmt.Errorf("browsers send this origin as %q; write it as they do", asSent(u))
	}
	*o = Origin(name)
	return nil
}

const asciiHost = "abcdefghijklmnopqrstuvwxyz0123456789-_.:"

// asSent returns the origin of a URL as browsers send it: in lower case, without the default port (RFC 6454, section
// 6.2).
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

// A HeaderName is the name of a request header.
type HeaderName string

// UnmarshalText refuses "*", which stands for all headers only in requests without the user's cookies. It also refuses
// names with unusual characters, which the CORS middleware cannot read.
func (h *HeaderName) UnmarshalText(text []byte) error {
	*h = HeaderName(text)
	switch {
	case *h == "*":
		return errors.New(`"*" is refused: name each header that the pages send`)
	case !plainHeader.MatchString(string(text)):
		return fmt.Errorf("%q is not the name of a header, such as traceparent or X-Requested-With", text)
	}
	return nil
}

var plainHeader = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// A Path is a path in its shortest form, without characters that need percent-encoding.
type Path string

// UnmarshalText refuses other paths, which a client or a proxy may spell in another way.
func (p *Path) UnmarshalText(text []byte) error {
	name := string(text)
	switch {
	case !strings.HasPrefix(name, "/"):
		return fmt.Errorf("%q must begin with /, as in /events", name)
	case !plainPath.MatchString(name):
		return fmt.Errorf("%q must be a path without a query, and contain only letters, digits and - . _ ~ /", name)
	case path.Clean(name) != name:
		return fmt.Errorf("%q is not in its shortest form: write %s", name, path.Clean(name))
	}
	*p = Path(name)
	return nil
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9._~/-]*$`)

// A RetryStatus is the status of an answer that tells a client to retry later.
type RetryStatus int

// UnmarshalText accepts 200, and the 5xx statuses after which nginx can try another server.
func (s *RetryStatus) UnmarshalText(text []byte) error {
	status, err := strconv.Atoi(string(text))
	if err != nil || !slices.Contains([]int{200, 500, 502, 503, 504}, status) {
		return fmt.Errorf("%q is not 200, 500, 502, 503 or 504: give 200, or a status after which a proxy such as nginx can try another hub", text)
	}
	*s = RetryStatus(status)
	return nil
}

// A ClaimName is the name of a claim that contains groups or topics.
type ClaimName string

// UnmarshalText refuses the empty name and the names of registered claims (RFC 7519, section 4.1).
func (c *ClaimName) UnmarshalText(text []byte) error {
	*c = ClaimName(text)
	if slices.Contains([]ClaimName{"", "iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, *c) {
		return fmt.Errorf("%q is not a claim that can contain groups or topics", text)
	}
	return nil
}
