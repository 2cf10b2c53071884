package doctor_test

import (
	"fmt"
	"strings"
	"testing"

	"rowcast/cmd/internal/doctor"
)

func TestReleasesWithFaultsInListen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		major, minor int
		verdict, fix string
	}{
		{12, 22, "fail", "upgrade PostgreSQL to 13 or later"},
		{13, 23, "warn", "upgrade PostgreSQL to a newer major version"},
		{14, 20, "warn", "14.21"},
		{15, 15, "warn", "15.16"},
		{15, 16, "ok", ""},
		{16, 11, "warn", "16.12"},
		{17, 7, "warn", "17.8"},
		{18, 1, "warn", "18.2"},
		{18, 2, "ok", ""},
		{19, 0, "ok", ""},
	} {
		version := fmt.Sprintf("%d.%d", tt.major, tt.minor)
		if verdict, fix := doctor.Release(version, tt.major, tt.minor); verdict != tt.verdict || !strings.Contains(fix, tt.fix) {
			t.Errorf("PostgreSQL %s: got the verdict %q and the fix %q, want %q and a fix that contains %q", version, verdict, fix, tt.verdict, tt.fix)
		}
	}
}
