package main

import (
	"net/http"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rowcast/stream"
)

// metrics shows what the hub and the listener count, in a registry of its own: nothing else gets in by an import.
func (s *service) metrics() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	counter := func(name, help string, value *atomic.Int64) {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Namespace: "rowcast", Name: name, Help: help},
			func() float64 { return float64(value.Load()) }))
	}
	gauge := func(name, help string, value func() float64) {
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "rowcast", Name: name, Help: help}, value))
	}

	hub := &s.hub.Stats
	gauge("connections", "Streams that are open.", func() float64 { return float64(hub.Streams.Load()) })
	counter("connections_total", "Streams that were opened.", &hub.Opened)
	countRefusals(registry, &hub.Refused)
	counter("disconnected_total", "Streams that were ended by /disconnect, here or at another hub.", &hub.Disconnected)
	counter("lobby_closed_total", "Connections without a stream that were closed because there were too many.", &s.lobby.Closed)
	counter("denied_total", "Requests for a stream from somebody who may have none.", &s.denied)
	counter("unknown_total", "Requests for a stream that were told to come back later because who it is could not be found out.", &s.unknown)
	counter("sent_events_total", "Events sent to live streams, once for each.", &hub.Sent)
	counter("sent_bytes_total", "Their bytes.", &hub.SentBytes)
	counter("replayed_events_total", "Events sent to streams that resumed.", &hub.Replayed)
	counter("replay_pages_total", "Pages read from the table to bring streams forward.", &hub.Pages)
	countOverflows(registry, hub)
	gauge("pending_bytes", "Memory held for all clients together that have not taken what they are sent, in bytes.",
		func() float64 { return float64(s.hub.Held()) })
	counter("resets_total", "Cursors that could not be honoured.", &hub.Resets)
	gauge("behind_seconds", "Time since PostgreSQL was last heard from.", func() float64 { return s.hub.Behind().Seconds() })

	feed := &s.listener.Stats
	gauge("database_connected", "1 while the listener has a session.", func() float64 {
		if feed.Connected.Load() {
			return 1
		}
		return 0
	})
	counter("database_sessions_total", "Sessions that the listener began: one, and one for each time that it had to reconnect.", &feed.Sessions)
	counter("database_connect_failures_total", "Attempts of the listener to begin a session with PostgreSQL that failed.", &feed.ConnectFailures)
	counter("rows_total", "Rows read.", &feed.Rows)
	counter("unreadable_rows_total", "Rows that could not be read and were announced as rowcast.unreadable, or skipped, once for each time that they were to be read.",
		&feed.Unreadable)
	counter("fetches_total", "Queries for new rows.", &feed.Fetches)
	counter("bells_total", "NOTIFYs from the trigger.", &feed.Bells)
	counter("notify_left_out_total", "Messages by hand, with NOTIFY, that were dropped because too many came at once.", &feed.LeftOut)
	counter("notify_malformed_total", "Messages by hand and rowcast.disconnect notifications that could not be understood.", &feed.Malformed)
	counter("parks_total", "Times that this hub took the park lock, to sleep until it is rung.", &feed.Parks)
	counter("unrung_rows_total", "Rows that came without a bell: by replication, or with the trigger disabled.", &feed.Unrung)
	gauge("foreign_rows", "Rows of transactions that this server has not given, which are never sent.",
		func() float64 { return float64(feed.ForeignXid.Load()) })
	gauge("notification_queue_ratio", "How full the NOTIFY queue of the server is, from 0 to 1. When it is full, INSERTs that send a NOTIFY fail.",
		feed.NotifyQueue)
	s.countFailures(registry)
	counter("deleted_rows_total", "Rows that this hub deleted because they were older than --retain.", &s.retention.Deleted)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// countRefusals shows them by their reason.
func countRefusals(registry *prometheus.Registry, refused *stream.Refusals) {
	for reason, value := range map[string]*atomic.Int64{
		"away": &refused.Away, "connections": &refused.Streams, "user": &refused.User, "address": &refused.Address,
	} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "refused_total", Help: "Requests for a stream that were told to come back later, by the reason.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value.Load()) }))
	}
}

// countOverflows shows the streams that were closed because their clients were too slow, by the bound that was reached.
func countOverflows(registry *prometheus.Registry, hub *stream.Stats) {
	for reason, value := range map[string]*atomic.Int64{"backlog": &hub.Overflows, "pending": &hub.Evicted} {
		registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "overflows_total",
			Help: "Streams closed because their clients were too slow, by the bound that was reached: the stream's own backlog, " +
				"or the bytes pending for all streams. The clients resume.",
			ConstLabels: prometheus.Labels{"reason": reason},
		}, func() float64 { return float64(value.Load()) }))
	}
}
