package cursor_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rowcast/listener/cursor"
)

// texts has cursors and their texts. rowcast.cursor() in the database writes texts of the same form.
var texts = map[string]struct {
	c    cursor.Cursor
	text string
}{
	"nothing seen": {
		cursor.Cursor{Xmax: 3, Epoch: 0x5be3b1f2, Anchor: cursor.Anchor{Tag: 0x0c9a8e11}},
		"0-0-3--5be3b1f2-0c9a8e11",
	},
	"whole, begins with the anchor's id": {
		cursor.Cursor{Xmax: 1043, Anchor: cursor.Anchor{ID: 77, Tag: 1}},
		"77-0-1043--00000000-00000001",
	},
	"in the middle of the highest transaction, its row is the anchor": {
		cursor.Cursor{Xmax: 1042, Xid: 1042, ID: 77, Anchor: cursor.Anchor{ID: 77, Tag: 1}},
		"77-1042-1042--00000000-00000001",
	},
	"in the middle of a lower transaction, the anchor has its own id": {
		cursor.Cursor{Xmax: 1043, Xid: 1030, ID: 77, Anchor: cursor.Anchor{ID: 80, Tag: 1}},
		"77-1030-1043--00000000-00000001.80",
	},
	"neighbours: ten gaps of 0, then one of 1": {
		cursor.Cursor{
			Xmax: 1042, Xip: []uint64{1030, 1032, 1033, 1034, 1035, 1036, 1037, 1038, 1039, 1040, 1041}, Xid: 1042, ID: 77,
			Epoch: 0x5be3b1f2, Anchor: cursor.Anchor{ID: 77, Tag: 0x0c9a8e11},
		},
		"77-1042-1042-~AAAAAAAAAAB-5be3b1f2-0c9a8e11",
	},
	"gaps of 31, 32 and 1023: one character, two, two": {
		cursor.Cursor{Xmax: 5000, Xip: []uint64{3911, 4935, 4968}},
		"0-0-5000-~fhA_f-00000000-00000000",
	},
	"the largest numbers": {
		cursor.Cursor{
			Xmax: math.MaxInt64, Xid: math.MaxInt64, ID: math.MaxInt64, Epoch: math.MaxUint32,
			Anchor: cursor.Anchor{ID: math.MaxInt64 - 1, Tag: math.MaxUint32},
		},
		"9223372036854775807-9223372036854775807-9223372036854775807--ffffffff-ffffffff.9223372036854775806",
	},
	"the widest gap, 13 characters": {
		cursor.Cursor{Xmax: math.MaxInt64, Xip: []uint64{3}},
		"0-0-9223372036854775807-~n___________b-00000000-00000000",
	},
}

func TestTexts(t *testing.T) {
	t.Parallel()
	for name, test := range texts {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := test.c.String(); got != test.text {
				t.Errorf("String: got %s, want %s", got, test.text)
			}
			if got, err := cursor.Parse(test.text); err != nil || !equal(got, test.c) {
				t.Errorf("Parse: got %+v and error %v, want %+v", fields(got), err, fields(test.c))
			}
			if got := string(test.c.Append([]byte("id: "))); got != "id: "+test.text {
				t.Errorf("Append: got %s, want %s", got, "id: "+test.text)
			}
		})
	}
}

// malformed has texts that are not the text of a cursor. The keys say what is wrong with them.
var malformed = map[string]string{
	"empty":                               "",
	"an id alone":                         "77",
	"a snapshot":                          "1042:1043:",
	"a field too few":                     "77-0-1043--5be3b1f2",
	"a field too many":                    "77-0-1043--5be3b1f2-0c9a8e11-",
	"no id":                               "-0-1043--5be3b1f2-0c9a8e11",
	"no xid":                              "77--1043--5be3b1f2-0c9a8e11",
	"no xmax":                             "77-0---5be3b1f2-0c9a8e11",
	"an id that is not a number":          "7a-0-1043--5be3b1f2-0c9a8e11",
	"an id with a sign":                   "+77-0-1043--5be3b1f2-0c9a8e11",
	"an id with a leading zero":           "077-0-1043--5be3b1f2-0c9a8e11",
	"an id of zeros":                      "00-0-3--5be3b1f2-0c9a8e11",
	"an id beyond bigint":                 "9223372036854775808-0-1043--5be3b1f2-0c9a8e11",
	"an xid with a leading zero":          "77-01042-1043--5be3b1f2-0c9a8e11",
	"an xmax beyond bigint":               "77-0-9223372036854775808--5be3b1f2-0c9a8e11",
	"an xmax in hexadecimal":              "77-0-0x413--5be3b1f2-0c9a8e11",
	"an xmax with an underscore":          "77-0-1_043--5be3b1f2-0c9a8e11",
	"a space":                             " 77-0-1043--5be3b1f2-0c9a8e11",
	"a line feed":                         "77-0-1043--5be3b1f2-0c9a8e11\n",
	"an xmax below the first transaction": "77-0-2--5be3b1f2-0c9a8e11",
	"a half-delivered xid above xmax":     "77-1044-1043--5be3b1f2-0c9a8e11",
	"a half-delivered xid below the first transaction":     "77-2-1043--5be3b1f2-0c9a8e11",
	"a half-delivered xid without a row":                   "0-1042-1042--5be3b1f2-0c9a8e11",
	"the half-delivered xid in flight":                     "77-1042-1043-~A-5be3b1f2-0c9a8e11",
	"an anchor with its own id, but no half-delivered xid": "77-0-1043--5be3b1f2-0c9a8e11.78",
	"no epoch":                           "77-0-1043---0c9a8e11",
	"a short epoch":                      "77-0-1043--5be3b1f-0c9a8e11",
	"a long epoch":                       "77-0-1043--5be3b1f21-0c9a8e11",
	"an epoch in capitals":               "77-0-1043--5BE3B1F2-0c9a8e11",
	"an epoch that is not hexadecimal":   "77-0-1043--5be3b1fg-0c9a8e11",
	"no tag":                             "77-0-1043--5be3b1f2-",
	"a short tag":                        "77-0-1043--5be3b1f2-c9a8e11",
	"a tag in capitals":                  "77-0-1043--5be3b1f2-0C9A8E11",
	"a dot without an id":                "77-1042-1043--5be3b1f2-0c9a8e11.",
	"an anchor's id with a sign":         "77-1042-1043--5be3b1f2-0c9a8e11.+80",
	"an anchor's id with a leading zero": "77-1042-1043--5be3b1f2-0c9a8e11.080",
	"two anchors":                        "77-1042-1043--5be3b1f2-0c9a8e11.80.80",
	"a list without a transaction":       "77-0-1043-~-5be3b1f2-0c9a8e11",
	"a list without its mark, as in an earlier version": "77-0-1043-AAC-5be3b1f2-0c9a8e11",
	"a mark inside the list":                            "77-0-1043-~A~A-5be3b1f2-0c9a8e11",
	"an unknown character":                              "77-0-1043-~A!-5be3b1f2-0c9a8e11",
	"a character of two bytes":                          "77-0-1043-~Aé-5be3b1f2-0c9a8e11",
	"a gap without its last digit":                      "77-0-1043-~h-5be3b1f2-0c9a8e11",
	"a second gap without its last digit":               "77-0-1043-~Ah-5be3b1f2-0c9a8e11",
	"a gap with a leading zero":                         "77-0-1043-~gB-5be3b1f2-0c9a8e11",
	"a gap that leads to transaction -13":               "77-0-1043-~hgf-5be3b1f2-0c9a8e11",
	"a gap that leads to transaction -1":                "77-0-1043-~hgT-5be3b1f2-0c9a8e11",
	"a gap that would overflow":                         "77-0-1043-~v____________f-5be3b1f2-0c9a8e11",
	"a transaction in flight below the first":           "77-0-4-~B-5be3b1f2-0c9a8e11",
	"too many transactions in flight":                   "0-0-9999-~" + strings.Repeat("A", cursor.MaxInFlight+1) + "-5be3b1f2-0c9a8e11",
}

func TestMalformed(t *testing.T) {
	t.Parallel()
	for name, text := range malformed {
		if got, err := cursor.Parse(text); !errors.Is(err, cursor.ErrMalformed) || !equal(got, cursor.Cursor{}) {
			t.Errorf("%s: Parse(%q): got %+v, %v, want %v", name, text, fields(got), err, cursor.ErrMalformed)
		}
	}
}

// checkText parses a text. Parse must refuse the text with ErrMalformed, or return a well-formed cursor that covers
// itself. The cursor's own text must be parsed as the same cursor, and must have the form of safe: it begins with a
// number and needs no escaping in a header or a URL. The list in flight must have at most one transaction for each byte
// of the text, and little unused memory.
func checkText(t *testing.T, text string) (accepted bool) {
	t.Helper()
	c, err := cursor.Parse(text)
	if err != nil {
		if !errors.Is(err, cursor.ErrMalformed) {
			t.Errorf("Parse(%q): got %v, want %v", text, err, cursor.ErrMalformed)
		}
		return false
	}
	again := c.String()
	if parsed, err := cursor.Parse(again); err != nil || !equal(parsed, c) {
		t.Errorf("%q: the cursor's text %s is parsed as %+v, %v, want the same cursor", text, again, fields(parsed), err)
	}
	if !safe.MatchString(again) {
		t.Errorf("%q: the cursor's text is %q, want a match of %v", text, again, safe)
	}
	if len(c.Xip) > len(text) || cap(c.Xip) > len(c.Xip)+len(c.Xip)/4+1 {
		t.Errorf("%q: the list in flight has length %d and capacity %d, want a length of at most %d and a capacity of at most five quarters of the length, plus one", text, len(c.Xip), cap(c.Xip), len(text))
	}
	if !wellFormed(c) {
		t.Errorf("%q: parsed as %+v, want a well-formed cursor", text, fields(c))
	}
	if !c.Covers(c) {
		t.Errorf("%q: the cursor does not cover itself, want it to", text)
	}
	return true
}

var safe = regexp.MustCompile(`^[0-9]+-[0-9]+-[0-9]+-(~[A-Za-z0-9._]+)?-[0-9a-f]{8}-[0-9a-f]{8}(\.[0-9]+)?$`)

// Each text is the text of a cursor with up to two random changes. Parse refuses it or returns a cursor that passes
// checkText.
func TestAnyText(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(5, 6))
	characters := []byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-+ ")
	accepted := 0
	for range 8_000 {
		text := []byte(randomCursor(rng, rng.IntN(20), 1<<rng.IntN(40)).String())
		for range rng.IntN(3) {
			text[rng.IntN(len(text))] = characters[rng.IntN(len(characters))]
		}
		if checkText(t, string(text)) {
			accepted++
		}
	}
	if accepted < 2_000 || accepted > 6_000 {
		t.Errorf("Parse accepted %d of 8000 texts, want from 2000 to 6000", accepted)
	}
}

// randomCursor returns a random cursor with at most inFlight transactions in flight. The distance of each from the xmax
// is at most spread.
func randomCursor(rng *rand.Rand, inFlight int, spread uint64) cursor.Cursor {
	c := cursor.Cursor{
		Xmax: cursor.First + spread + uint64(inFlight) + rng.Uint64N(1<<rng.IntN(62)), Epoch: cursor.Tag(rng.Uint32()),
		Anchor: cursor.Anchor{ID: rng.Int64N(1 << rng.IntN(62)), Tag: cursor.Tag(rng.Uint32())},
	}
	if rng.IntN(2) == 0 {
		c.Xid, c.ID = c.Xmax-rng.Uint64N(min(spread, 1000)), 1+rng.Int64N(1<<rng.IntN(62))
	}
	for range inFlight {
		c.Xip = append(c.Xip, c.Xmax-1-rng.Uint64N(spread))
	}
	slices.Sort(c.Xip)
	c.Xip = keep(slices.Compact(c.Xip), func(xid uint64) bool { return xid != c.Xid })
	return c
}

// A text is parsed as the cursor from which it was written. The text begins with the id of the last delivered row of
// the half-delivered transaction, or with the anchor's id if no transaction is half-delivered.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(7, 8))
	for range 4_000 {
		c := randomCursor(rng, rng.IntN(50), 1<<rng.IntN(40))
		text := c.String()
		if got, err := cursor.Parse(text); err != nil || !equal(got, c) {
			t.Fatalf("%+v: the text %s is parsed as %+v, %v, want the same cursor", fields(c), text, fields(got), err)
		}
		checkText(t, text)
		want := c.ID
		if c.Whole() {
			want = c.Anchor.ID
		}
		first, _, _ := strings.Cut(text, "-")
		if got, err := strconv.ParseInt(first, 10, 64); err != nil || got != want {
			t.Errorf("the text %s begins with %d, want %d", text, got, want)
		}
	}
}

// Parse does not panic, and each text passes checkText.
func FuzzParse(f *testing.F) {
	for _, test := range texts {
		f.Add(test.text)
	}
	for _, text := range malformed {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkText(t, text) })
}
