package main_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// The table of clients in stream/README.md has each tested client and its result without a service worker. The test
// also compares the versions of npm packages and Go modules, but not the versions of browsers.
func TestOtherClientsAreDocumented(t *testing.T) {
	t.Parallel()
	versions := versionsOfClients(t)
	results := map[string]string{}
	for _, client := range otherClients() {
		results[client.name] = client.kinds[0].outcome.result
	}
	documented := map[string]bool{}
	const row = "(?m)^\\| (?:npm |Go )?`?([^|`]+?)`? \\| ([^|]+) \\| ([^|]+) \\|"
	for _, found := range regexp.MustCompile(row).FindAllStringSubmatch(section(t, readmeOf(t, "stream/README.md"), "## Clients"), -1)[1:] {
		pkg, version, result := found[1], found[2], found[3]
		name := driverOf(pkg)
		documented[name] = true
		if want, ok := versions[pkg]; ok && version != want {
			t.Errorf("%s has the version %s in stream/README.md, want %s", pkg, version, want)
		}
		delete(versions, pkg)
		if result != results[name] {
			t.Errorf("%s has the result %q in stream/README.md, want %q", pkg, result, results[name])
		}
	}
	wantSame(t, "client", documented, results)
	for pkg := range versions {
		t.Errorf("%s is not in the table of stream/README.md", pkg)
	}
}

// driverOf returns the name that the tests use for the client in a package.
func driverOf(pkg string) string {
	switch pkg {
	case "Firefox ESR":
		return "Firefox"
	case "github.com/r3labs/sse/v2":
		return "r3labs"
	}
	return pkg[strings.LastIndex(pkg, "/")+1:]
}

// versionsOfClients returns the versions of the clients in package-lock.json and go.mod.
func versionsOfClients(t *testing.T) map[string]string {
	t.Helper()
	var lock struct {
		Packages map[string]struct {
			Version      string
			Dependencies map[string]string
		}
	}
	if err := json.Unmarshal([]byte(readmeOf(t, ".ci/eventsources/package-lock.json")), &lock); err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for name := range lock.Packages[""].Dependencies {
		versions[name] = lock.Packages["node_modules/"+name].Version
	}
	for _, name := range []string{"github.com/tmaxmax/go-sse", "github.com/r3labs/sse/v2"} {
		found := regexp.MustCompile(`(?m)^\s` + regexp.QuoteMeta(name) + ` (\S+)$`).FindStringSubmatch(readmeOf(t, ".ci/eventsources/go/go.mod"))
		if found == nil {
			t.Fatalf(".ci/eventsources/go/go.mod does not require %s", name)
		}
		versions[name] = found[1]
	}
	return versions
}
