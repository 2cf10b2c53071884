package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rowcast/listener/feed"
	"rowcast/stream"
)

// maxTopicsHeader is the maximum length of the topics of a request in bytes, as the app receives them. Many web servers
// refuse headers above 8 KiB in total.
const maxTopicsHeader = 4 << 10

// Topics returns the topics that a request for a stream asks for, sorted and without duplicates. Each value of the
// query parameter topic is a topic. An [Authenticator] grants a topic by naming it among the groups of the grant. A
// [Handler] denies the request if a topic is not granted. The error is a [Denial] if the query cannot be read, if a
// topic cannot be a recipient, if there are too many or too long topics, or if the name of another parameter begins
// with "topic" in upper or lower case.
func Topics(r *http.Request) ([]string, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // a part of the query would be ignored, and the client would not notice
		return nil, badRequest("the query cannot be read: " + err.Error())
	}
	for name := range query {
		// Some libraries encode lists as topic[] or topic[0]. Without an error, such a stream would lack its topics.
		if name != "topic" && strings.HasPrefix(strings.ToLower(name), "topic") {
			return nil, badRequest(fmt.Sprintf("unknown parameter %.40q: write topic=NAME for each topic", name))
		}
	}
	topics := slices.Sorted(slices.Values(query["topic"]))
	topics = slices.Clip(slices.Compact(topics))
	if len(topics) > MaxGroups {
		return nil, badRequest(fmt.Sprintf("more than %d topics", MaxGroups))
	}
	for _, topic := range topics {
		if err := feed.CheckIdentity(topic); err != nil {
			return nil, badRequest("a topic " + err.Error())
		}
	}
	if length := len(topicsHeader(topics)); length > maxTopicsHeader {
		return nil, badRequest(fmt.Sprintf("the topics have %d bytes together, and may have %d", length, maxTopicsHeader))
	}
	return topics, nil
}

// topicsHeader returns the value of the header Rowcast-Topics. The topics are separated by commas. Commas in a
// topic, and the other characters that url.PathEscape escapes, are percent-encoded.
func topicsHeader(topics []string) string {
	encoded := make([]string, len(topics))
	for i, topic := range topics {
		encoded[i] = url.PathEscape(topic)
	}
	return strings.Join(encoded, ",")
}

// checkGranted denies a request unless the grant contains every topic that the request asks for.
func checkGranted(topics []string, grant stream.Grant) error {
	for _, topic := range topics {
		if !slices.Contains(grant.Groups, topic) {
			return forbidden(fmt.Sprintf("the topic %q was not granted", topic))
		}
	}
	return nil
}

// covers reports whether one of the patterns matches a topic. A pattern that ends with "*" matches every topic that
// begins with the rest of the pattern. Any other pattern matches only itself.
func covers(patterns []string, topic string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		prefix, isPrefix := strings.CutSuffix(pattern, "*")
		return pattern == topic || isPrefix && strings.HasPrefix(topic, prefix)
	})
}
