package main

import (
	"encoding/json"
	"errors"
	"io"
)

// readObject reads a JSON object, by key into what is given for it, and whether there may be others. It takes keys only as they are
// written, and each once: encoding/json would take RECIPIENT for recipient, and the last of two, which whoever can write into the text
// could have put there. After the object nothing may follow.
func readObject(text io.Reader, into map[string]any, others bool) (ok bool) {
	decoder := json.NewDecoder(text)
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('{') {
		return false
	}
	for seen := make(map[string]bool); decoder.More(); {
		token, err := decoder.Token()
		if err != nil {
			return false
		}
		key := token.(string) // else it is no JSON, which is an error
		value, known := into[key]
		if seen[key] || !known && !others {
			return false
		}
		seen[key] = true
		if !known {
			value = new(json.RawMessage)
		}
		if decoder.Decode(value) != nil {
			return false
		}
	}
	if _, err := decoder.Token(); err != nil { // its end
		return false
	}
	_, err := decoder.Token()
	return errors.Is(err, io.EOF)
}
