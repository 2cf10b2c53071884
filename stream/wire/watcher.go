package wire

// A Watcher notices when clients disconnect. T identifies a stream. Gone must be set before the first call of Watch. It
// is called once for each stream. For a stream through net/http, Watch calls it. For any other stream, it is called in a
// goroutine of its own.
type Watcher[T any] struct {
	Gone func(T)

	poller poller[T]
}

// Watch calls Gone once the client has gone or the stream has ended. For a connection that was taken over, Watch
// returns at once. For any other it returns after the call of Gone, because net/http ends the stream when the handler
// returns.
func (w *Watcher[T]) Watch(conn Conn, stream T) {
	switch c := conn.(type) {
	case *response:
		c.wait()
		w.Gone(stream)
	case *socket:
		if !w.poller.add(c, stream, w.Gone) {
			go func() { // so that net/http's goroutine and its buffers, which have grown large, are freed
				c.wait()
				w.Gone(stream)
			}()
		}
	}
}
