package server

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rowcast/stream"
)

// A registry has the metrics of a hub. It is one of its own: no import adds to it.
type registry struct{ *prometheus.Registry }

func (r registry) counter(name, help string, value *atomic.Int64) {
	r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "rowcast", Name: name, Help: help},
		func() float64 { return float64(value.Load()) }))
}

func (r registry) gauge(name, help string, value func() float64) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "rowcast", Name: name, Help: help}, value))
}

// metrics shows what the parts of the server count.
func (s *Server) metrics() http.Handler {
	r := registry{prometheus.NewRegistry()}
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.countRequests(r)
	s.countStreams(r)
	s.countEvents(r)
	s.countSessions(r)
	s.countRows(r)
	s.countFailures(r)
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{})
}

// countRequests shows the requests for streams, and the connections.
func (s *Server) countRequests(r registry) {
	r.counter("lobby_closed_total", "Connections without a stream that were closed because too many were open.", &s.lobby.Closed)
	r.counter("denied_total", "Requests for a stream that were denied.", &s.Events.Stats.Denied)
	r.counter("unknown_total", "Requests for a stream that could not be authenticated for a temporary reason. The clients retry later.", &s.Events.Stats.Unknown)
	countRefusals(r, &s.Hub.Stats.Refused)
}

// countStreams shows the streams and how they end.
func (s *Server) countStreams(r registry) {
	hub := &s.Hub.Stats
	r.gauge("connections", "Streams that are open.", func() float64 { return float64(hub.Streams.Load()) })
	r.counter("connections_total", "Streams that were opened.", &hub.Opened)
	r.counter("disconnected_total", "Streams that were ended by /disconnect, here or at another hub.", &hub.Disconnected)
	r.counter("resets_total", "Streams that got rowcast.reset because their cursor could not be continued.", &hub.Resets)
	countOverflows(r, hub)
}

// countEvents shows what is sent to the streams.
func (s *Server) countEvents(r registry) {
	hub := &s.Hub.Stats
	r.counter("sent_events_total", "Events sent to live streams, once for each.", &hub.Sent)
	r.counter("sent_bytes_total", "Bytes of the events sent to live streams.", &hub.SentBytes)
	r.counter("replayed_events_total", "Events sent to streams that resumed.", &hub.Replayed)
	r.counter("replay_pages_total", "Pages that were read from the table for streams that resumed.", &hub.Pages)
	r.gauge("pending_bytes", "Memory held for all clients together that have not taken what they are sent, in bytes.",
		func() float64 { return float64(s.Hub.Held()) })
}

// countSessions shows the sessions with PostgreSQL, and how the hub hears of new rows.
func (s *Server) countSessions(r registry) {
	feed := &s.Listener.Stats
	r.gauge("behind_seconds", "Time since PostgreSQL was last heard from.", func() float64 { return s.Hub.Behind().Seconds() })
	r.gauge("lag_seconds", "All rows that were committed longer ago than this have been sent. Up to 1 s while the hub sleeps.",
		func() float64 { return s.Listener.Stats.Lag().Seconds() })
	r.gauge("database_connected", "1 while the listener has a session.", func() float64 {
		if feed.Connected.Load() {
			return 1
		}
		return 0
	})
	r.counter("database_sessions_total", "Sessions that the listener began: one, and one for each time that it had to reconnect.", &feed.Sessions)
	r.counter("fetches_total", "Queries for new rows.", &feed.Fetches)
	r.counter("bells_total", "Notifications from the trigger.", &feed.Bells)
	r.counter("parks_total", "Times that this hub took the park lock to wait for notifications.", &feed.Parks)
	r.counter("notify_left_out_total", "Messages by hand, with NOTIFY, that were dropped because too many came at once.", &feed.LeftOut)
	r.counter("notify_malformed_total", "Messages by hand and rowcast.disconnect notifications that could not be understood.", &feed.Malformed)
	r.gauge("notification_queue_ratio", "How full the NOTIFY queue of the server is, from 0 to 1. When it is full, INSERTs that send a NOTIFY fail.",
		feed.NotifyQueue)
}

// countRows shows what becomes of the rows.
func (s *Server) countRows(r registry) {
	feed := &s.Listener.Stats
	r.counter("rows_total", "Rows read.", &feed.Rows)
	r.counter("unreadable_rows_total", "Rows that could not be read and were announced as rowcast.unreadable, or skipped, once for each time "+
		"that they were to be read.", &feed.Unreadable)
	r.counter("unrung_rows_total", "Rows that were found without a notification: logical replication, rowcast.ring = off, or a disabled trigger.", &feed.Unrung)
	r.gauge("foreign_rows", "Rows of transactions that this server has not given, which are never sent.",
		func() float64 { return float64(feed.ForeignXid.Load()) })
	r.counter("deleted_rows_total", "Rows that this hub deleted because they were older than --retain.", &s.Retention.Deleted)
}

// countRefusals shows them by their reason.
func countRefusals(r registry, refused *stream.Refusals) {
	for reason, value := range map[string]*atomic.Int64{
		"away": &refused.Away, "connections": &refused.Streams, "user": &refused.User, "address": &refused.Address,
	} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "refused_total", Help: "Requests for a stream that the hub did not accept, by reason. The clients retry later.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value.Load()) }))
	}
}

// countOverflows shows the streams that were closed because their clients were too slow, by the bound that was reached.
func countOverflows(r registry, hub *stream.Stats) {
	for reason, value := range map[string]*atomic.Int64{"backlog": &hub.Overflows, "pending": &hub.Evicted} {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "overflows_total",
			Help: "Streams closed because their clients were too slow, by the bound that was reached: the stream's own backlog, " +
				"or the bytes pending for all streams. The clients resume.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value.Load()) }))
	}
}
