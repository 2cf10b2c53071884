// Command texts prints texts of the project that it picks at random. A reader who has not seen the texts marks each
// text as clear at the first reading, as clear at the second reading, or as wrong. For example:
//
//	go run ./.ci/texts -n 100 -seed 1
//
// It picks from the comments in Go, SQL and JavaScript (.js) and in .ci/run, the messages and help texts in Go, and the
// paragraphs of the documentation.
package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// A text is shown to a reader with the lines around it, as someone who reads the file sees it.
type text struct {
	file        string
	first, last int // the first and the last line of the text, counted from 1
	words       string
}

// The numbers of lines before and after a text that are shown with it.
const (
	linesBefore = 4
	linesAfter  = 8
)

func main() {
	n := flag.Int("n", 100, "number of texts")
	seed := flag.Uint64("seed", 1, "seed of the random numbers: the same seed picks the same texts from the same files")
	within := flag.String("in", "", "pick only from files whose path begins with this")
	flag.Parse()
	all, err := collect(*within)
	if err != nil {
		log.Fatal(err)
	}
	random := rand.New(rand.NewPCG(*seed, *seed))
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	drawn := all[:min(*n, len(all))]
	slices.SortFunc(drawn, func(a, b text) int {
		if a.file != b.file {
			return strings.Compare(a.file, b.file)
		}
		return a.first - b.first
	})
	for i, t := range drawn {
		place, err := t.place()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d. %s:%d\n%s\n\n", i+1, t.file, t.first, place)
	}
	fmt.Printf("%d of %d texts, seed %d\n", len(drawn), len(all), *seed)
}

// place returns the text with the lines around it. The lines of the text are marked with ">".
func (t text) place() (string, error) {
	source, err := os.ReadFile(t.file)
	lines := strings.Split(string(source), "\n")
	var place strings.Builder
	for n := max(1, t.first-linesBefore); n <= min(t.last+linesAfter, len(lines)); n++ {
		mark := " "
		if n >= t.first && n <= t.last {
			mark = ">"
		}
		fmt.Fprintf(&place, "%s %s\n", mark, lines[n-1])
	}
	return place.String(), err
}

// collect returns the texts of the files below the working directory whose path begins with within.
func collect(within string) (all []text, err error) {
	err = filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && d.Name() == ".git" {
				return filepath.SkipDir
			}
			return err
		}
		if !strings.HasPrefix(path, within) {
			return nil
		}
		found, err := textsOf(path)
		all = append(all, found...)
		return err
	})
	return all, err
}

func textsOf(path string) ([]text, error) {
	switch filepath.Ext(path) {
	case ".go":
		return textsOfGo(path)
	case ".sql":
		return blocks(path, regexp.MustCompile(`^\s*--\s?(.*)`))
	case ".js":
		return blocks(path, regexp.MustCompile(`^\s*(?://|/?\*+)\s?(.*)`))
	case ".md":
		return blocks(path, regexp.MustCompile(`^([A-Za-z*-].*)`))
	}
	if path == filepath.Join(".ci", "run") {
		return blocks(path, regexp.MustCompile(`^\s*# (.*)`))
	}
	return nil, nil
}

// textsOfGo returns the comments and the strings in a Go file that are texts for people.
func textsOfGo(path string) (all []text, err error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	for _, group := range file.Comments {
		all = appendText(all, text{path, files.Position(group.Pos()).Line, files.Position(group.End()).Line, strings.TrimSpace(group.Text())})
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if literal, ok := n.(*ast.BasicLit); ok && literal.Kind == token.STRING {
			if s, err := strconv.Unquote(literal.Value); err == nil && isMessage(s) {
				all = appendText(all, text{path, files.Position(literal.Pos()).Line, files.Position(literal.End()).Line, strings.TrimSpace(s)})
			}
		}
		return true
	})
	return all, nil
}

var isCode = regexp.MustCompile(`(?i)\b(select|insert|update|delete|create|alter|grant|drop|truncate|vacuum)\b.*\b(from|into|set|table|on|to|database|role|schema)\b|[<>{}=\\]|;$`)

// isMessage guesses whether a string is a text for people. It leaves out paths and most SQL, HTML and JSON. Therefore
// it also leaves out some texts, such as those that contain one of the characters < > { } = and \.
func isMessage(s string) bool {
	return !isCode.MatchString(s) && !strings.HasPrefix(s, "/") && !strings.Contains(s, "\n\t")
}

// appendText appends t, unless it has fewer than four words or is a nolint directive.
func appendText(all []text, t text) []text {
	if len(strings.Fields(t.words)) < 4 || strings.HasPrefix(t.words, "nolint") {
		return all
	}
	return append(all, t)
}

// blocks returns a text for each run of lines that match line and are not fenced code. A text has the first submatches
// of its lines.
func blocks(path string, line *regexp.Regexp) (all []text, err error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var block []string
	from, fenced := 0, false
	for i, l := range append(strings.Split(string(source), "\n"), "") {
		if strings.HasPrefix(strings.TrimSpace(l), "```") {
			fenced = !fenced
		}
		if m := line.FindStringSubmatch(l); m != nil && !fenced {
			if len(block) == 0 {
				from = i + 1
			}
			block = append(block, m[1])
			continue
		}
		if len(block) > 0 {
			all = appendText(all, text{path, from, i, strings.TrimSpace(strings.Join(block, "\n"))})
		}
		block = nil
	}
	return all, nil
}
