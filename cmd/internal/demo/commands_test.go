package demo_test

import (
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/demo"
)

func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[string]string{
		"postgres://u:secret@db.example:5433/app?sslmode=disable":          "postgres://u@db.example:5433/app?sslmode=disable",
		"postgres://u@h/app?password=secret&sslmode=disable":               "postgres://u@h/app?sslmode=disable",
		"postgres://h:5432/app?sslmode=disable":                            "postgres://h:5432/app?sslmode=disable",
		"host=h port=5433 user=u dbname=d sslmode=disable":                 "host=h port=5433 user=u dbname=d sslmode=disable",
		`host='/a b/it\'s' port=5433 user=u dbname=d password='se cret'`:   `host='/a b/it\'s' port=5433 user=u dbname=d`,
		`host=h port=5433 user='a\\b' dbname=d password=x sslmode=disable`: `host=h port=5433 user='a\\b' dbname=d`,
		"postgres://u:secret@h1:5433,h2:5434/app":                          "postgres://u@h1:5433,h2:5434/app",
		"postgres://u:secret@h1:5433,h2/app":                               "host=h1 port=5433 user=u dbname=app",
		"postgres://u:12?34@h:5433/app":                                    "host=h port=5433 user=u dbname=app",
	} {
		config, err := pgx.ParseConfig(dsn)
		if err != nil {
			t.Fatal(err)
		}
		if got := demo.WithoutPassword(dsn, config); got != want {
			t.Errorf("%s: got %s, want %s", dsn, got, want)
		}
	}
}
