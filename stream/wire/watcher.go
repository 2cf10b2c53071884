package wire

// A Watcher notices when clients disconnect. T identifies a stream. Gone must be set before the first call of Watch.
// Gone is called once for each stream. For a stream through net/http, Watch calls Gone. For any other stream, a
// separate goroutine calls Gone.
type Watcher[T any] struct {
	Gone func(T)

	poller poller[T]
}

// Watch makes sure that Gone is called when the client has disconnected or the stream has ended. For a connection that
// was taken over, Watch returns at once. For any other connection, Watch returns after the call of Gone, because
// net/http ends the stream when the handler returns.
func (w *Watcher[T]) Watch(conn Conn, stream T) {
	switch c := conn.(type) {
	case *response:
		c.wait()
		w.Gone(stream)
	case *socket:
		if !w.poller.add(c, stream, w.Gone) {
			go func() { // Watch returns, so that net/http's goroutine ends and frees its large buffers
				c.wait()
				w.Gone(stream)
			}()
		}
	}
}
