package dbtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Port returns a TCP port on 127.0.0.1 at which no server listens. Until this process ends, no other call of Port in
// any process returns the same port. By default, Linux and macOS give higher ports to outgoing connections, so the
// port also stays free while a server restarts.
func Port(t testing.TB) int {
	t.Helper()
	port, err := reservePort(firstPort, endPort)
	if err != nil {
		t.Fatalf("dbtest: %v", err)
	}
	return port
}

const firstPort, endPort = 20000, 32000

// reservations has a UDP socket for each reserved TCP port, at the UDP port with the same number. Only one socket can
// have a UDP port, and the system closes the socket when the process ends.
var reservations sync.Map

// reservePort reserves one of the ports from first to end-1.
func reservePort(first, end int) (int, error) {
	for _, i := range rand.Perm(end - first) {
		port := first + i
		address := fmt.Sprintf("127.0.0.1:%d", port)
		reservation, err := net.ListenPacket("udp4", address)
		if err != nil {
			continue
		}
		if server, err := net.Listen("tcp4", address); err == nil {
			reservations.Store(port, reservation)
			return port, server.Close()
		}
		_ = reservation.Close()
	}
	return 0, fmt.Errorf("find a free TCP port on 127.0.0.1: all from %d to %d are taken", first, end-1)
}
