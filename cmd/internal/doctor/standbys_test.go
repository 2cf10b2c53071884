package doctor_test

import (
	"testing"

	"rowcast/cmd/internal/doctor"
)

func TestNumberOfRequiredStandbys(t *testing.T) {
	t.Parallel()
	for names, want := range map[string]int{
		"*":                       1,
		"a":                       1,
		"a, b":                    1,
		"2, 3":                    1, // two standbys with these names
		`"FIRST 2 (", b`:          1,
		"2 (a, b)":                2,
		"FIRST 1 (a, b)":          1,
		"FIRST 2 (a, b)":          2,
		"first 2(a,b)":            2,
		" FIRST\t12\n( a , b ) ":  12,
		"ANY 3 (*)":               3,
		`any 2 ("1 (", "b c", d)`: 2,
	} {
		if got := doctor.RequiredStandbys(names); got != want {
			t.Errorf("synchronous_standby_names = %s: got %d required standbys, want %d", names, got, want)
		}
	}
}
