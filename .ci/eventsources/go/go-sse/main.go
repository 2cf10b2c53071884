// This program prints the events of a stream. Its argument is the URL.
package main

import (
	"log"
	"net/http"
	"os"

	"github.com/tmaxmax/go-sse"

	"example.com/eventsources/report"
)

func main() {
	request, err := http.NewRequest(http.MethodGet, os.Args[1], nil)
	if err != nil {
		log.Fatal(err)
	}
	connection := sse.NewConnection(request)
	connection.SubscribeToAll(func(e sse.Event) { report.Event(e.Type, e.LastEventID, e.Data) })
	log.Fatal(connection.Connect())
}
