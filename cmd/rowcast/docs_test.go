package main_test

import (
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// root is the path of the root of the repository.
const root = "../.."

// changelog is the document that may contain names that no longer exist.
const changelog = ".github/CHANGELOG.md"

// readmeOf returns the text of a file, whose path is relative to the root of the repository.
func readmeOf(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// section returns the part of a text after a heading, up to the next heading of the same or a higher level.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, ok := strings.Cut(text, "\n"+heading+"\n")
	if !ok {
		t.Fatalf("there is no heading %q", heading)
	}
	level := strings.IndexByte(heading, ' ')
	next := regexp.MustCompile(`(?m)^#{1,` + strconv.Itoa(level) + `} `).FindStringIndex(after)
	if next == nil {
		return after
	}
	return after[:next[0]]
}

// documents returns the paths of all Markdown files in the repository, relative to its root.
func documents(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		switch {
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case strings.HasSuffix(path, ".md"):
			paths = append(paths, strings.TrimPrefix(path, root+"/"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// wantSame reports an error for each key that is only in documented or only in actual, and also if actual is empty.
func wantSame[V any, W any](t *testing.T, what string, documented map[string]V, actual map[string]W) {
	t.Helper()
	if len(actual) == 0 {
		t.Errorf("%s: the test found none", what)
	}
	for _, name := range slices.Sorted(maps.Keys(actual)) {
		if _, ok := documented[name]; !ok {
			t.Errorf("%s %s is not documented", what, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := actual[name]; !ok {
			t.Errorf("%s %s is documented, but the test did not find it", what, name)
		}
	}
}

var (
	code = regexp.MustCompile("(?ms)^```.*?^```$|^    .*?$")
	link = regexp.MustCompile(`\]\(([^()\s]+)\)`)
)

func TestLinksOfDocuments(t *testing.T) {
	t.Parallel()
	links := 0
	for _, document := range documents(t) {
		for _, found := range link.FindAllStringSubmatch(code.ReplaceAllString(readmeOf(t, document), ""), -1) {
			if strings.Contains(found[1], "://") {
				continue
			}
			links++
			path, anchor, _ := strings.Cut(found[1], "#")
			target := document
			if path != "" {
				target = filepath.Join(filepath.Dir(document), path)
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: the target of the link %s does not exist", document, found[1])
			} else if anchor != "" && !slices.Contains(anchors(readmeOf(t, target)), anchor) {
				t.Errorf("%s: the heading of the link %s does not exist", document, found[1])
			}
		}
	}
	if links < 30 {
		t.Errorf("the test found %d links, want at least 30", links)
	}
}

var (
	headings    = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
)

// anchors returns the anchors that GitHub gives to the headings of a document.
func anchors(text string) (all []string) {
	times := map[string]int{}
	for _, heading := range headings.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
		anchor := strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading[1]), ""), " ", "-")
		if n := times[anchor]; n > 0 {
			all = append(all, anchor+"-"+strconv.Itoa(n))
		} else {
			all = append(all, anchor)
		}
		times[anchor]++
	}
	return all
}

func TestRootReadmeIsShort(t *testing.T) {
	t.Parallel()
	const most = 900
	if words := len(strings.Fields(readmeOf(t, "README.md"))); words > most {
		t.Errorf("README.md has %d words, want at most %d", words, most)
	}
}

// A flagText has the placeholder and the default of a flag, as the help or a README shows them.
type flagText struct{ placeholder, value string }

var (
	helpFlag    = regexp.MustCompile(`(?m)^ +(?:-\w, )?--([a-z-]+)=?(\S*)(.*(?:\n {20,}.*)*)`)
	helpDefault = regexp.MustCompile(`\((?:default:?|[^()]*, default) ([^ ,;()]+)\)|\(default:? ([^ ,;()]+)[,;]|\(([^ ,;()]+), the default[:)]`)
	readmeFlag  = regexp.MustCompile("(?m)^\\| `--([a-z-]+) ?([^`]*)` \\| ([^|]*) \\|")
)

// flagsOfHelp returns the flags of a command, except --help and --version. The field value of a flag is its default, or
// "" if the help names none.
func flagsOfHelp(t *testing.T, command string) map[string]flagText {
	t.Helper()
	_, help, _ := run(t, nil, command, "--help")
	flags := map[string]flagText{}
	for _, found := range helpFlag.FindAllStringSubmatch(help, -1) {
		if found[1] != "help" && found[1] != "version" {
			value := append(helpDefault.FindStringSubmatch(strings.Join(strings.Fields(found[3]), " ")), "", "", "", "")
			flags[found[1]] = flagText{strings.TrimSuffix(found[2], ",..."), value[1] + value[2] + value[3]}
		}
	}
	return flags
}

// flagsOfReadme returns the flags in a table of a README.
func flagsOfReadme(table string) map[string]flagText {
	flags := map[string]flagText{}
	for _, row := range readmeFlag.FindAllStringSubmatch(table, -1) {
		flags[row[1]] = flagText{row[2], strings.Trim(row[3], "`")}
	}
	return flags
}

func TestFlagsAreDocumented(t *testing.T) {
	t.Parallel()
	readme := readmeOf(t, "cmd/rowcast/README.md")
	tables := map[string]string{"serve": section(t, readme, "### `rowcast serve`")}
	for _, part := range strings.Split(section(t, readme, "### Other commands"), "| `rowcast ")[1:] {
		command, rows, _ := strings.Cut(part, "`")
		command, _, _ = strings.Cut(command, " ") // without an argument
		tables[command] = rows
	}
	for _, command := range []string{"serve", "migrate", "doctor", "tail", "token", "watch", "unwatch", "demo"} {
		t.Run(command, func(t *testing.T) {
			t.Parallel()
			documented, actual := flagsOfReadme(tables[command]), flagsOfHelp(t, command)
			wantSame(t, "the flag", documented, actual)
			for flag, want := range actual {
				got, ok := documented[flag]
				if ok && got.placeholder != want.placeholder {
					t.Errorf("--%s takes %q, but %q is documented", flag, want.placeholder, got.placeholder)
				}
				if ok && want.value != "" && got.value != want.value && flag != "replays" { // the default of --replays depends on the machine
					t.Errorf("the default of --%s is %s, but %s is documented", flag, want.value, got.value)
				}
			}
		})
	}
}

func TestMetricsAreDocumented(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Inbox(t), "--inbox")
	metrics := ask(t, "GET", h.url+"/metrics").body
	names := func(pattern, text string) map[string]bool {
		all := map[string]bool{}
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
			all[found[1]] = true
		}
		return all
	}
	readme := readmeOf(t, "cmd/rowcast/README.md")
	actual := names(`(?m)^# TYPE (rowcast_\w+) `, metrics)
	wantSame(t, "the metric", names("(?m)^\\| `(rowcast_\\w+)` \\|", section(t, readme, "## Metrics")), actual)
	wantSame(t, "the operation", names("(?m)^\\| `(\\w+)` \\|", afterText(t, section(t, readme, "## Health"), "| operation |")),
		names(`rowcast_failures_total{operation="(\w+)"}`, metrics))
	for reason := range names(`{reason="(\w+)"}`, metrics) {
		if !strings.Contains(section(t, readme, "## Metrics"), "`"+reason+"`") {
			t.Errorf("the reason %s is not documented", reason)
		}
	}
	for _, document := range documents(t) {
		if document == changelog {
			continue
		}
		for name := range names(`\b(rowcast_[a-z_]+_(?:total|bytes|seconds|ratio|rows))\b`, readmeOf(t, document)) {
			if !actual[name] {
				t.Errorf("%s names the metric %s, which does not exist", document, name)
			}
		}
	}
}

func afterText(t *testing.T, text, begin string) string {
	t.Helper()
	_, after, ok := strings.Cut(text, begin)
	if !ok {
		t.Fatalf("the text does not contain %q", begin)
	}
	return after
}

// sourceOf returns the text of all files that match a pattern, except tests.
func sourceOf(t *testing.T, pattern string) (all string) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, pattern))
	if err != nil || len(paths) == 0 {
		t.Fatalf("the pattern %s matches %d files (%v), want at least 1", pattern, len(paths), err)
	}
	for _, path := range paths {
		if !strings.HasSuffix(path, "_test.go") {
			all += readmeOf(t, strings.TrimPrefix(path, root+"/"))
		}
	}
	return all
}

var qualified = regexp.MustCompile(`(?m)(?:^|[^/\w.])rowcast\.([a-z_]+)\b`)

// Every event of the hub is documented. Each name with the prefix rowcast. in a document is in the source, too: as an
// event, a channel of NOTIFY, or a name in the schema or the listener. The changelog may have old names.
func TestEventsAreDocumented(t *testing.T) {
	t.Parallel()
	protocol := readmeOf(t, "stream/README.md")
	// rowcast.js is the browser client. rowcast.sql is a file for the output of rowcast migrate --print.
	known := map[string]bool{"js": true, "sql": true}
	events := regexp.MustCompile(`sse\.MustName\("rowcast\.([a-z]+)"\)`).FindAllStringSubmatch(sourceOf(t, "stream/*.go"), -1)
	if len(events) == 0 {
		t.Fatal("the test found no events in the source of package stream")
	}
	for _, event := range events {
		known[event[1]] = true
		if !strings.Contains(protocol, "`rowcast."+event[1]+"`") {
			t.Errorf("stream/README.md does not document the event rowcast.%s", event[1])
		}
	}
	for _, event := range regexp.MustCompile(`"rowcast\.([a-z]+)"`).FindAllStringSubmatch(sourceOf(t, "stream/web/rowcast.js"), -1) {
		known[event[1]] = true
	}
	for _, pattern := range []string{"sql/migrations/*.sql", "sql/inbox/*.sql", "sql/*.go", "listener/*.go"} {
		for _, object := range qualified.FindAllStringSubmatch(sourceOf(t, pattern), -1) {
			known[object[1]] = true
		}
	}
	for _, channel := range regexp.MustCompile(`sql\.Channel \+ "\.([a-z]+)"`).FindAllStringSubmatch(sourceOf(t, "listener/*.go"), -1) {
		known[channel[1]] = true
	}
	for _, document := range documents(t) {
		if document == changelog {
			continue
		}
		for _, name := range qualified.FindAllStringSubmatch(readmeOf(t, document), -1) {
			if !known[name[1]] {
				t.Errorf("%s names rowcast.%s, which is not an event, a channel, or a name in the source of the schema or of the listener", document, name[1])
			}
		}
	}
}

func TestExitCodesAreDocumented(t *testing.T) {
	t.Parallel()
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (\d+) \|`).FindAllStringSubmatch(section(t, readmeOf(t, "cmd/rowcast/README.md"), "## Signals and exit codes"), -1) {
		documented[row[1]] = true
	}
	actual := map[string]bool{}
	for _, args := range [][]string{{"--version"}, {"migrate"}, {"serve", "--no-such-flag"}} {
		code, _, _ := run(t, environment{"DATABASE_URL": "host=127.0.0.1 port=1"}, args...)
		actual[strconv.Itoa(code)] = true
	}
	wantSame(t, "the exit code", documented, actual)
}
