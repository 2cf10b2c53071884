// Package report prints the events that a client receives.
package report

import (
	"encoding/json"
	"log"
	"os"
)

// Event prints an event as a line of JSON. A client may deliver a part of the data, so the data is a string.
func Event(name, id, data string) {
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"event": name, "id": id, "data": data}); err != nil {
		log.Fatal(err)
	}
}
