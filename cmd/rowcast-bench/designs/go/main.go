// Command design is a hub in Go with lib/pq: a trigger sends each row in the payload of a NOTIFY, and the hub has a
// channel for each stream.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/lib/pq"
)

type row struct {
	ID        int64           `json:"id"`
	Recipient string          `json:"recipient"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
}

var (
	mu      sync.RWMutex
	streams = map[string]map[chan row]bool{}
)

func main() {
	if os.Getenv("PGSSLMODE") == "" {
		os.Setenv("PGSSLMODE", "disable") // pq would require TLS
	}
	listener := pq.NewListener(os.Getenv("DATABASE_URL"), time.Second, time.Minute, func(_ pq.ListenerEventType, err error) {
		if err != nil {
			log.Fatal(err)
		}
	})
	if err := listener.Listen("naive"); err != nil {
		log.Fatal(err)
	}
	go listen(listener)
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("/events", serve)
	go func() { log.Fatal(http.Serve(socket, nil)) }()
	answer(socket.Addr().String())
}

func listen(listener *pq.Listener) {
	for notification := range listener.Notify {
		var r row
		if err := json.Unmarshal([]byte(notification.Extra), &r); err != nil {
			log.Fatal(err)
		}
		mu.RLock()
		for stream := range streams[r.Recipient] {
			select {
			case stream <- r:
			default: // the client is too slow
			}
		}
		mu.RUnlock()
	}
}

func serve(w http.ResponseWriter, r *http.Request) {
	user, stream := r.URL.Query().Get("uid"), make(chan row, 1024)
	mu.Lock()
	if streams[user] == nil {
		streams[user] = map[chan row]bool{}
	}
	streams[user][stream] = true
	mu.Unlock()
	defer func() {
		mu.Lock()
		delete(streams[user], stream)
		mu.Unlock()
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(w, ": hello\n\n")
	for control := http.NewResponseController(w); control.Flush() == nil; {
		select {
		case r := <-stream:
			fmt.Fprintf(w, "id: %d\nevent: %s\ndata: %s\n\n", r.ID, r.Event, r.Data)
		case <-r.Context().Done():
			return
		}
	}
}

// answer answers the commands of rowcast-bench until they end.
func answer(address string) {
	commands, answers := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var command struct{ Do string }
		if err := commands.Decode(&command); err != nil {
			return
		}
		var result any = address
		if command.Do == "processes" {
			result = []int{os.Getpid()}
		}
		if err := answers.Encode(map[string]any{"Result": result}); err != nil {
			return
		}
	}
}
