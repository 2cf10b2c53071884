package sse_test

import (
	"fmt"
	"strings"

	"rowcast/stream/sse"
)

func ExampleEvents() {
	body := strings.NewReader("event: notify\ndata: {\"msg\": \"hi\"}\nid: 7\n\n")
	for event, err := range sse.Events(body) {
		if err != nil {
			panic(err)
		}
		fmt.Println(event.LastID, event.Name, event.Data)
	}
	// Output: 7 notify {"msg": "hi"}
}

// A Decoder keeps what the next connection needs. LastID is the value for the header Last-Event-ID. Retry is the time
// to wait before the next connection.
func ExampleDecoder() {
	connections := []string{
		"retry: 3000\n\ndata: one\nid: 1\n\ndata: two, but the connection breaks here",
		"data: two\nid: 2\n\n",
	}
	var d sse.Decoder
	for _, body := range connections {
		fmt.Printf("connect with Last-Event-ID: %q\n", d.LastID)
		for event, err := range d.Events(strings.NewReader(body)) {
			if err != nil {
				panic(err)
			}
			fmt.Println(event.Data)
		}
		fmt.Println("wait", d.Retry)
	}
	// Output:
	// connect with Last-Event-ID: ""
	// one
	// wait 3s
	// connect with Last-Event-ID: "1"
	// two
	// wait 3s
}
