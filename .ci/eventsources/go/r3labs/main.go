// This program prints the events of a stream. Its argument is the URL.
package main

import (
	"log"
	"os"
	"time"

	"github.com/r3labs/sse/v2"
	"gopkg.in/cenkalti/backoff.v1"

	"example.com/eventsources/report"
)

func main() {
	client := sse.NewClient(os.Args[1])
	client.ReconnectStrategy = backoff.NewConstantBackOff(100 * time.Millisecond)
	for {
		// SubscribeRaw returns when a stream ends. It retries only after an error.
		if err := client.SubscribeRaw(func(e *sse.Event) { report.Event(string(e.Event), string(e.ID), string(e.Data)) }); err != nil {
			log.Fatal(err)
		}
	}
}
