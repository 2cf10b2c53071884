package stream_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// The seat of a subscriber must only be used while the state of the Hub is locked. The methods of state, roster and
// group run with the lock. Hub.beat and Hub.renew lock the state themselves.
func TestSeatsAreUsedOnlyWithTheStateLocked(t *testing.T) {
	t.Parallel()
	allowed := map[string]bool{
		"state": true, "roster": true, "group": true,
		"Hub.beat": true, "Hub.renew": true,
	}
	found := 0
	for name, function := range functions(t) {
		ast.Inspect(function, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok || selector.Sel.Name != "seat" {
				return true
			}
			found++
			if receiver, _, _ := strings.Cut(name, "."); !allowed[receiver] && !allowed[name] {
				t.Errorf("%s uses the seat of a subscriber, want only functions that are known to run with the state locked", name)
			}
			return true
		})
	}
	if found == 0 {
		t.Error("no function uses the seat of a subscriber: the test shows nothing")
	}
}

// The counters of Stats are for operators. The Hub only adds to them. No decision of the Hub depends on their values.
func TestStatsAreNotRead(t *testing.T) {
	t.Parallel()
	found := 0
	for name, function := range functions(t) {
		ast.Inspect(function, func(n ast.Node) bool {
			selector, ok := n.(*ast.SelectorExpr)
			if !ok || !isStat(selector.X) {
				return true
			}
			found++
			if selector.Sel.Name != "Add" {
				t.Errorf("%s calls %s of a counter, want only Add", name, selector.Sel.Name)
			}
			return true
		})
	}
	if found == 0 {
		t.Error("no counter is used: the test shows nothing")
	}
}

// isStat reports whether an expression is a counter of Stats, such as h.Stats.Opened. It does not recognize the
// counters of Refusals, and counters that are reached through a variable, such as stats.Sent.
func isStat(x ast.Expr) bool {
	field, ok := x.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	stats, ok := field.X.(*ast.SelectorExpr)
	return ok && stats.Sel.Name == "Stats" && field.Sel.Name != "Refused" // Refused is a struct of counters itself
}

// functions returns the functions of the package, without its tests, by their names: "Hub.Run", or "encode" without a
// receiver.
func functions(t *testing.T) map[string]*ast.FuncDecl {
	t.Helper()
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]*ast.FuncDecl)
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range parsed.Decls {
			if function, ok := declaration.(*ast.FuncDecl); ok {
				all[nameOf(function)] = function
			}
		}
	}
	return all
}

func nameOf(function *ast.FuncDecl) string {
	if function.Recv == nil {
		return function.Name.Name
	}
	receiver := function.Recv.List[0].Type
	if pointer, ok := receiver.(*ast.StarExpr); ok {
		receiver = pointer.X
	}
	name, _ := receiver.(*ast.Ident)
	return name.Name + "." + function.Name.Name
}
