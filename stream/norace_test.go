//go:build !race

package stream_test

// raceDetector reports whether the race detector is on. The race detector multiplies the memory and the time that a
// test needs.
const raceDetector = false
