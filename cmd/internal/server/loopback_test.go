package server_test

import (
	"testing"

	"rowcast/cmd/internal/server"
)

func TestIsLoopback(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost:80": true, "localhost.:80": true, "app.localhost:80": true,
		"127.0.0.1": true, "127.0.0.1:8080": true, "127.9.9.9:1": true, "[::1]:8080": true, "[::1]": true, "::1": true,
		"": false, ":8080": false, "0.0.0.0:8080": false, "[::]:8080": false, "192.0.2.1:80": false, "example.com": false,
		"localhost.example.com": false, "127.0.0.1.example.com:80": false, "notlocalhost": false, "127.0.0.1@example.com": false,
	} {
		if got := server.IsLoopback(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}
