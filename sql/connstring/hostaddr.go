package connstring

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// withAddresses parses a connection string, and makes the configuration connect to the addresses in hostaddr. As in
// libpq, hostaddr has an address for each host. If an address is empty, the name of its host is resolved. The names of
// the hosts remain for the verification of certificates and for the password file. hosts is what
// parseHosts returns for s: it has each host of s once.
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
	byDefault, err := parseHosts(override(s, "host", ""))
	if err != nil {
		return nil, invalid(s, err)
	}
	names, err := names(hosts, byDefault.Host, addresses)
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

// names returns a name for each address: its host, or the address itself if the host is missing or is a directory of
// Unix sockets. If an address is empty, its host is returned, even if that is a directory of Unix sockets. byDefault is
// the host of a connection string that has no host.
func names(hosts *pgx.ConnConfig, byDefault string, addresses []string) ([]string, error) {
	all := []string{hosts.Host}
	for _, fallback := range hosts.Fallbacks {
		all = append(all, fallback.Host)
	}
	if len(all) == 1 && all[0] == byDefault { // probably no host was given
		all = slices.Repeat(all, len(addresses))
	}
	if len(all) != len(addresses) {
		return nil, Error(fmt.Sprintf("the number of hosts is %d, and the number of addresses in hostaddr is %d: write an address for each host", len(all), len(addresses)))
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

// setAddresses replaces the host in each attempt of config by its address, unless the address is empty. A host that is
// a directory of Unix sockets has one attempt. All other hosts have the same number of attempts: two if config tries
// with and without TLS, otherwise one.
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
	overTCP := (len(attempts) - sockets) / max(1, len(names)-sockets) // attempts for each host over TCP
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
