package main

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/server"
)

func TestDownloadProgress(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	p := newProgress(&out)
	const total = 30 << 20
	for i := range int64(301) {
		p.download(total*i/300, total)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 11 || !strings.HasSuffix(out.String(), "30 MB of 30 (100 %)\n") {
		t.Errorf("%d lines, want 11 with the last for 100 %%:\n%s", lines, &out)
	}
}

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost:80": true, "localhost.:80": true, "app.localhost:80": true,
		"127.0.0.1": true, "127.0.0.1:8080": true, "127.9.9.9:1": true, "[::1]:8080": true, "[::1]": true, "::1": true,
		"": false, ":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "192.0.2.1:80": false, "example.com": false,
		"localhost.example.com": false, "127.0.0.1.example.com:80": false, "notlocalhost": false, "127.0.0.1@example.com": false,
	} {
		if got := server.IsLoopback(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

func TestShellQuote(t *testing.T) {
	t.Parallel()
	for _, want := range []string{"plain", "", "two words", "it's", `$HOME "x" \ !`, "a\nb", "*", "~"} {
		got, err := exec.Command("sh", "-c", "printf %s "+shellQuote(want)).Output()
		if err != nil || string(got) != want {
			t.Errorf("%s is %q to a shell (%v), want %q", shellQuote(want), got, err, want)
		}
	}
}

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:secret@db.example:5433/app?sslmode=disable":          "postgres://u@db.example:5433/app?sslmode=disable",
		"postgres://u@h/app?password=secret&sslmode=disable":               "postgres://u@h/app?sslmode=disable",
		"postgres://h:5432/app?sslmode=disable":                            "postgres://h:5432/app?sslmode=disable",
		"host=h port=5433 user=u dbname=d sslmode=disable":                 "host=h port=5433 user=u dbname=d sslmode=disable",
		`host='/a b/it\'s' port=5433 user=u dbname=d password='se cret'`:   `host='/a b/it\'s' port=5433 user=u dbname=d`,
		`host=h port=5433 user='a\\b' dbname=d password=x sslmode=disable`: `host=h port=5433 user='a\\b' dbname=d`,
	} {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if got := withoutPassword(dsn, config); got != want {
			t.Errorf("%s: got %s, want %s", dsn, got, want)
		}
	}
}
