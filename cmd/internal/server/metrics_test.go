package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// However many clients ask for the metrics, they are gathered at most once in metricsInterval. Each answer has the values
// of a time after its request.
func TestMetricsAreGatheredSeldom(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var gathered int
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "gathered_total", Help: "Help."},
			func() float64 { gathered++; return float64(gathered) }))
		h := &metricsHandler{gather: registry.Gather}
		get := func() string {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
			return w.Body.String()
		}
		const text = "# HELP gathered_total Help.\n# TYPE gathered_total counter\ngathered_total "
		began := time.Now()
		if got := get(); got != text+"1\n" || time.Since(began) > 0 {
			t.Errorf("got %q after %v, want the first value at once", got, time.Since(began))
		}
		var clients sync.WaitGroup
		for range 100 {
			clients.Go(func() {
				if got := get(); got != text+"2\n" {
					t.Errorf("got %q, want the second value", got)
				}
			})
		}
		clients.Wait()
		if waited := time.Since(began); waited != metricsInterval || gathered != 2 {
			t.Errorf("gathered %d times in %v, want twice in %v", gathered, waited, metricsInterval)
		}
	})
}

// If gathering takes longer than metricsInterval, the next one waits for its end.
func TestMetricsAreGatheredOneAtATime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var running, most int
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "running", Help: "Help."}, func() float64 {
			running++
			most = max(most, running)
			time.Sleep(10 * metricsInterval) // the clock of the bubble
			running--
			return 0
		}))
		h := &metricsHandler{gather: registry.Gather}
		var clients sync.WaitGroup
		for i := range 5 {
			clients.Go(func() {
				time.Sleep(time.Duration(i) * 2 * metricsInterval)
				h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
			})
		}
		clients.Wait()
		if most != 1 {
			t.Errorf("%d gatherings ran at the same time, want 1", most)
		}
	})
}

// If a metric cannot be gathered, the answer is an error.
func TestMetricsError(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	registry.MustRegister(failingCollector{})
	w := httptest.NewRecorder()
	(&metricsHandler{gather: registry.Gather}).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusInternalServerError || !strings.Contains(w.Body.String(), "oops") {
		t.Errorf("got the status %d and %q, want 500 and the error oops", w.Code, w.Body)
	}
}

// A client that has closed its side of the connection does not receive an empty answer as if there were no metrics.
func TestMetricsAreNotEmpty(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := &metricsHandler{gather: prometheus.NewRegistry().Gather, from: time.Now().Add(metricsInterval)}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/metrics", nil))
		if w.Code != 499 {
			t.Errorf("got the status %d, want 499", w.Code)
		}
		time.Sleep(2 * metricsInterval) // in the bubble, until the metrics have been gathered
	})
}

type failingCollector struct{}

func (failingCollector) Describe(chan<- *prometheus.Desc) {}

func (failingCollector) Collect(metrics chan<- prometheus.Metric) {
	err := errors.New("oops")
	metrics <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
}
