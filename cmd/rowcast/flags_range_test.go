package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// Numbers, durations and sizes below and above the range of a flag are refused, with the range in the message. That
// includes values that overflow.
func TestFlagsHaveRanges(t *testing.T) {
	t.Parallel()
	tooMany := []string{"-9223372036854775808", "9223372036854775807", "99999999999999999999", "-1"}
	tooLong := []string{"300000h", "9223372036854775807ns", "99999999999999999999h", "106752d", "1000000000000d", "-1ns", "-106752d1h"}
	tooLarge := []string{"9EiB", "8EiB", "7.999EiB", "99999999999999999999B", "2000TiB", "0B", "-1B", "-9EiB", "0.5B"}
	for _, tt := range []struct {
		flag, low, high string
		values          []string
	}{
		{"serve --replays", "1", "1000", append(tooMany, "0", "1001", "2000000")},
		{"serve --max-connections", "0", "10000000", tooMany},
		{"serve --max-connections-per-user", "0", "10000000", tooMany},
		{"serve --max-connections-per-address", "0", "10000000", tooMany},
		{"serve --retain", "0s", "36500d", append(tooLong, "36501d")[4:]},
		{"serve --heartbeat", "1ms", "1d", append(tooLong, "0", "999us")},
		{"serve --retry", "1ms", "1d", append(tooLong, "0", "24h1s")},
		{"serve --drain", "1ms", "6s", append(tooLong, "0")},
		{"serve --auth-timeout", "1ms", "30s", append(tooLong, "0")},
		{"serve --auth-grace", "0s", "30d", tooLong},
		{"serve --jwt-leeway", "0s", "1m", tooLong},
		{"serve --max-event", "1B", "1GiB", append(tooLarge, "2GiB")},
		{"serve --backlog", "1B", "1TiB", tooLarge},
		{"serve --memory", "1B", "1TiB", tooLarge},
		{"token --expires", "1s", "3650d", append(tooLong, "999ms")[1:]},
		{"tail --count", "0", "1000000000", tooMany},
	} {
		command, flag, _ := strings.Cut(tt.flag, " ")
		for _, value := range tt.values {
			code, stdout, stderr := run(t, nil, command, flag+"="+value)
			want := fmt.Sprintf("rowcast: %s: %s is not from %s to %s\n", flag, value, tt.low, tt.high)
			if code != 2 || stdout != "" || stderr != want {
				t.Errorf("%s=%s: got %d, stdout %q, stderr %q, want 2, nothing, %q", tt.flag, value, code, stdout, stderr, want)
			}
		}
	}
}

// Both ends of a range, and values between them, are accepted. The command then fails because no authentication is
// configured.
func TestFlagsTakeTheEndsOfTheirRanges(t *testing.T) {
	t.Parallel()
	for flag, values := range map[string][]string{
		"--replays": {"1", "1000"}, "--max-connections": {"0", "10000000"},
		"--retain":    {"0", "0s", "7d", "36500d", "1d12h30m", "+1.5d", "876000h"},
		"--heartbeat": {"1ms", "1d", "1000µs", "24h", "0.5s"}, "--retry": {"1ms", "1d"}, "--drain": {"1ms", "6s"},
		"--max-event": {"1B", "1GiB"}, "--backlog": {"1B", "1TiB"}, "--memory": {"1B", "64 MiB", "1.5G", "1TiB", "1000kB"},
	} {
		for _, value := range values {
			code, _, stderr := run(t, nil, "serve", flag, value)
			if code != 2 || !strings.HasPrefix(stderr, "rowcast: no authentication is configured, so") {
				t.Errorf("%s=%s: got %d, %q, want 2 and the error that no authentication is configured", flag, value, code, stderr)
			}
		}
	}
}
