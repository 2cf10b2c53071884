package connstring

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// withAddresses parses a connection string, and makes the configuration connect to the addresses in hostaddr. As in libpq, hostaddr has
// an address for each host, and an empty one means that the host's name is resolved. The names of the hosts remain for the
// verification of certificates and for the password file. hosts is a configuration with one address for each host.
func withAddresses(s string, hosts *pgx.ConnConfig, hostaddr string) (*pgx.ConnConfig, error) {
	if hostaddr == "" {
		return parse(s)
	}
	addresses := strings.Split(hostaddr, ",")
	for i, address := range addresses {
		addresses[i] = strings.TrimSpace(address)
		if _, err := netip.ParseAddr(addresses[i]); addresses[i] != "" && err != nil {
			return nil, Error("hostaddr is invalid: write an IP address such as 192.0.2.1, and the name as host=…")
		}
	}
	names, err := names(hosts, addresses)
	if err != nil {
		return nil, err
	}
	config, err := parse(override(s, "host", strings.Join(names, ",")))
	if err != nil {
		return nil, err
	}
	setAddresses(config, names, addresses)
	return config, nil
}

// names returns a name for each address: the host, or the address itself if there is no host. A directory of Unix sockets is not used if
// there is an address for it.
func names(hosts *pgx.ConnConfig, addresses []string) ([]string, error) {
	all := []string{hosts.Host}
	for _, fallback := range hosts.Fallbacks {
		all = append(all, fallback.Host)
	}
	if len(all) == 1 && isSocket(all[0]) { // probably no host was given
		all = slices.Repeat(all, len(addresses))
	}
	if len(all) != len(addresses) {
		return nil, Error(fmt.Sprintf("there are %d hosts, and %d addresses in hostaddr: write an address for each host", len(all), len(addresses)))
	}
	for i, address := range addresses {
		if address != "" && isSocket(all[i]) {
			all[i] = address
		}
	}
	return all, nil
}

func isSocket(host string) bool {
	network, _ := pgconn.NetworkAddress(host, 0)
	return network == "unix"
}

// setAddresses replaces the host in each attempt of config by its address. For each host, config has one attempt over a Unix socket, or
// the same number of attempts over TCP: two if it tries with and without TLS.
func setAddresses(config *pgx.ConnConfig, names, addresses []string) {
	attempts := []*string{&config.Host}
	for _, fallback := range config.Fallbacks {
		attempts = append(attempts, &fallback.Host)
	}
	sockets := 0
	for _, name := range names {
		if isSocket(name) {
			sockets++
		}
	}
	overTCP := (len(attempts) - sockets) / max(1, len(names)-sockets) // attempts for each host
	for i, name := range names {
		n := 1
		if !isSocket(name) {
			n = overTCP
		}
		for _, host := range attempts[:n] {
			if addresses[i] != "" {
				*host = addresses[i]
			}
		}
		attempts = attempts[n:]
	}
}
