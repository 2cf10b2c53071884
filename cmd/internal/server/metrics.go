package server

import (
	"bytes"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"rowcast/listener/failures"
	"rowcast/stream"
)

// A registry holds the metrics of a hub. It is not Prometheus' default registry, to which imported packages may add
// metrics.
type registry struct{ *prometheus.Registry }

func (r registry) counter(name, help string, value *atomic.Int64) {
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "rowcast", Name: name, Help: help},
		func() float64 { return float64(value.Load()) }))
}

func (r registry) gauge(name, help string, value func() float64) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "rowcast", Name: name, Help: help}, value))
}

// metrics returns the handler of /metrics.
func (s *Server) metrics() http.Handler {
	r := registry{prometheus.NewRegistry()}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.registerRequests(r)
	s.registerStreams(r)
	s.registerEvents(r)
	s.registerSessions(r)
	s.registerRows(r)
	s.registerFailures(r)
	if s.inboxes != nil {
		r.MustRegister(s.inboxes.requests, s.inboxes.duration)
	}
	return &metricsHandler{gather: r.Gather}
}

// A metricsHandler answers with metrics in the text format of Prometheus. Gathering and encoding them takes about 2 ms of
// CPU, and without AdminListen every client may ask for them. Therefore they are gathered at most once in
// metricsInterval. Requests that come meanwhile wait for the next time and share its result.
type metricsHandler struct {
	gather prometheus.GathererFunc

	mu      sync.Mutex
	next    *metricsText // the result for which requests wait; nil if none waits
	from    time.Time    // when the metrics may be gathered again
	running bool         // a gathering is scheduled or runs
}

const metricsInterval = 100 * time.Millisecond

// A metricsText is the result of a gathering. Its fields are set when done is closed.
type metricsText struct {
	done chan struct{}
	text []byte
	err  error
}

func (h *metricsHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	result := h.await()
	select {
	case <-result.done:
	case <-r.Context().Done(): // the client has disconnected, or has only stopped sending, and can still receive
		w.WriteHeader(stream.StatusDisconnected)
		return
	}
	if result.err != nil {
		http.Error(w, "cannot gather the metrics: "+result.err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", string(expfmt.NewFormat(expfmt.TypeTextPlain)))
	_, _ = w.Write(result.text)
}

// await returns the next result, which is gathered after the call.
func (h *metricsHandler) await() *metricsText {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.next == nil {
		h.next = &metricsText{done: make(chan struct{})}
		h.schedule()
	}
	return h.next
}

// schedule schedules a gathering, unless one is scheduled or runs. The caller holds mu.
func (h *metricsHandler) schedule() {
	if !h.running {
		h.running = true
		time.AfterFunc(time.Until(h.from), h.write)
	}
}

// finish schedules another gathering if requests have come during the last one.
func (h *metricsHandler) finish() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = false
	if h.next != nil {
		h.schedule()
	}
}

// write gathers the metrics for the requests that wait.
func (h *metricsHandler) write() {
	h.mu.Lock()
	result := h.next
	h.next, h.from = nil, time.Now().Add(metricsInterval)
	h.mu.Unlock()
	defer h.finish()
	defer close(result.done)
	families, err := h.gather()
	var text bytes.Buffer
	for _, family := range families {
		if err == nil {
			_, err = expfmt.MetricFamilyToText(&text, family)
		}
	}
	result.text, result.err = text.Bytes(), err
}

// registerRequests registers the metrics of requests for streams and of idle connections.
func (s *Server) registerRequests(r registry) {
	r.counter("idle_connections_closed_total", "HTTP connections without a stream at --listen that were closed because too many of them were open.",
		&s.idle.Closed)
	r.counter("auth_denied_total", "Requests for a stream, and preflight requests, that were denied with status 400, 401 or 403.", &s.Events.Stats.Denied)
	r.counter("auth_unavailable_total", "Requests for a stream that could not be authenticated for a temporary reason, such as an "+
		"app that does not answer. The clients retry later.", &s.Events.Stats.Unavailable)
	registerRefusals(r, &s.Hub.Stats.Refused)
}

// registerStreams registers the metrics of streams.
func (s *Server) registerStreams(r registry) {
	hub := &s.Hub.Stats
	r.gauge("streams", "Streams that are open now, and polls that wait for their answer.", func() float64 { return float64(hub.Streams.Load()) })
	r.counter("streams_opened_total", "Streams that were opened. Polls are not counted.", &hub.Opened)
	r.counter("polls_total", "Polls (GET with poll=1) that were accepted.", &hub.Polls)
	r.counter("streams_disconnected_total", "Streams of this hub that were ended by POST /disconnect at any hub, or by a NOTIFY on rowcast.disconnect.",
		&hub.Disconnected)
	r.counter("resets_total", "Events rowcast.reset that were sent because a stream could not continue from its client's cursor.",
		&hub.Resets)
	registerOverflows(r, hub)
}

// registerEvents registers the metrics of events.
func (s *Server) registerEvents(r registry) {
	hub := &s.Hub.Stats
	r.counter("sent_events_total", "Events sent to live streams, counted once for each stream. Regular heartbeats and rowcast.bye are not counted.", &hub.Sent)
	r.counter("sent_bytes_total", "Bytes of the events that rowcast_sent_events_total counts.", &hub.SentBytes)
	r.counter("replayed_events_total", "Events sent to streams that resumed from a cursor, because their clients had missed them.", &hub.Replayed)
	r.counter("replay_pages_total", "Attempts to read a page of rows from the table for streams that resumed from a cursor.", &hub.Pages)
	r.gauge("pending_bytes", "Bytes of events held in memory because clients have not received them yet, and of memory reserved for pages of missed events, for all streams together.",
		func() float64 { return float64(s.Hub.Held()) })
}

// registerSessions registers the metrics of the sessions with PostgreSQL and of the ways in which the hub finds new
// rows.
func (s *Server) registerSessions(r registry) {
	feed := &s.Listener.Stats
	r.gauge("behind_seconds", "Seconds since the hub last read from PostgreSQL successfully. 0 while the hub starts.", func() float64 { return s.Hub.Behind().Seconds() })
	r.gauge("lag_seconds", "Upper bound, in seconds, of the age of committed rows that the hub has not read yet. Values up to about 1 are normal, even if no rows are inserted.",
		func() float64 { return s.Listener.Stats.Lag().Seconds() })
	r.gauge("database_connected", "1 while the listener is connected to PostgreSQL, else 0.", func() float64 {
		if s.Listener.Connected() {
			return 1
		}
		return 0
	})
	r.counter("database_sessions_total", "Sessions with PostgreSQL that the listener has started: the first one, and one for each reconnect.", &feed.Sessions)
	r.counter("fetches_total", "Pages of rows that the listener has read, empty pages included.", &feed.Fetches)
	r.counter("wakeups_total", "Notifications without a payload, as the trigger sends them.", &feed.Wakeups)
	r.counter("park_lock_acquired_total", "Times that this hub took the park lock to wait for notifications.", &feed.ParkLocks)
	r.counter("notify_dropped_total", "NOTIFY messages that were dropped because too many came at once.", &feed.Dropped)
	r.counter("notify_malformed_total", "Malformed messages, and malformed requests to disconnect a recipient, that were received with NOTIFY and ignored.", &feed.Malformed)
	r.gauge("notification_queue_ratio", "Used part of the PostgreSQL server's NOTIFY queue, from 0 to 1. When it is full, transactions that notify fail.",
		feed.NotifyQueue)
}

// registerRows registers the metrics of rows.
func (s *Server) registerRows(r registry) {
	feed := &s.Listener.Stats
	r.counter("rows_total", "Rows that the listener has read. Rows that are read again for streams that resume are not counted.", &feed.Rows)
	r.counter("unreadable_rows_total", "Rows that could not be read, counted at each attempt. Streams get rowcast.unreadable instead, "+
		"or nothing if no valid recipient can be read either.", &feed.Unreadable)
	r.counter("unnotified_rows_total", "Rows that a safety poll found because they came without a notification: logical replication, rowcast.ring = off, or a disabled trigger.", &feed.Unnotified)
	r.gauge("foreign_rows", "Rows in the table that are never sent, because the PostgreSQL server has not assigned their transaction numbers. "+
		"Counted at most once a minute, and only up to 1000.",
		func() float64 { return float64(feed.ForeignXid.Load()) })
	r.counter("deleted_rows_total", "Rows that this hub has deleted because they were older than --retain.", &s.Retention.Deleted)
}

// registerRefusals registers the numbers of refused requests for a stream, by reason.
func registerRefusals(r registry, refused *stream.Refusals) {
	for reason, value := range map[string]*atomic.Int64{
		"unavailable": &refused.Unavailable, "streams": &refused.Streams, "user": &refused.User, "address": &refused.Address,
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "refused_total", Help: "Refused requests for a stream, by reason: the hub was unavailable (it was starting or stopping, had just " +
				"disconnected the user or a group of the user, or could not read the missed rows for a poll), or a limit was reached. The clients retry later.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value.Load()) }))
	}
}

// registerOverflows registers the numbers of streams that were closed because their clients were too slow, by reason.
func registerOverflows(r registry, hub *stream.Stats) {
	for reason, value := range map[string]*atomic.Int64{"backlog": &hub.Overflows, "pending": &hub.Evicted} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "overflows_total",
			Help: "Streams closed because their clients were too slow, by the bound that was reached: backlog is the bound of one stream, " +
				"pending is the bound of all streams together. The clients reconnect and resume.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value.Load()) }))
	}
}

// registerFailures registers the number of failures of each operation.
func (s *Server) registerFailures(r registry) {
	for _, of := range failures.All {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "failures_total", Help: "Failed attempts, by operation.",
			ConstLabels: prometheus.Labels{"operation": string(of)},
		}, func() float64 { return float64(s.failureOf(of).Total) }))
	}
}
