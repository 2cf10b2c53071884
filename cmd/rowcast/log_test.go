package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestDurationsInTheLogHaveUnits(t *testing.T) {
	t.Parallel()
	for format, want := range map[string]string{"text": "retry_in=140ms\n", "json": `"retry_in":"140ms"}` + "\n"} {
		var log bytes.Buffer
		newLogger(&log, format).Info("x", "retry_in", 140*time.Millisecond)
		if !strings.HasSuffix(log.String(), want) {
			t.Errorf("got %s, want %s at the end", log.String(), want)
		}
	}
}
