//go:build race

package stream_test

// raceDetector is true if the race detector runs, which takes several times the memory and the time.
const raceDetector = true
