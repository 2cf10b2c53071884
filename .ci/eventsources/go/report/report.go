// Package report prints the events that a client receives.
package report

import (
	"encoding/json"
	"log"
	"os"
)

// Event prints an event as a line of JSON. The data is a string, because a client may deliver only a part of
// it, which is not valid JSON.
func Event(name, id, data string) {
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"event": name, "id": id, "data": data}); err != nil {
		log.Fatal(err)
	}
}
