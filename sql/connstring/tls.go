package connstring

import (
	"cmp"
	"crypto/tls"
	"strings"

	"github.com/jackc/pgx/v5"
)

// setTLS applies the versions of TLS and the lists of revoked certificates to each attempt of config that uses TLS.
func (s settings) setTLS(config *pgx.ConnConfig) error {
	lowest, err := s.version("ssl_min_protocol_version")
	if err != nil {
		return err
	}
	highest, err := s.version("ssl_max_protocol_version")
	if err != nil {
		return err
	}
	if highest != 0 && highest < cmp.Or(lowest, tls.VersionTLS12) {
		return Error("ssl_max_protocol_version is lower than ssl_min_protocol_version, which is TLSv1.2 by default")
	}
	revoked, err := s.revocations()
	if err != nil {
		return err
	}
	all := []*tls.Config{config.TLSConfig}
	for _, fallback := range config.Fallbacks {
		all = append(all, fallback.TLSConfig)
	}
	for _, one := range all {
		if one == nil {
			continue
		}
		one.MinVersion, one.MaxVersion = lowest, highest
		if revoked == nil {
			continue
		}
		if one.InsecureSkipVerify && one.VerifyPeerCertificate == nil {
			return Error("sslcrl and sslcrldir need a verified certificate of the server: add sslmode=verify-full and sslrootcert")
		}
		one.VerifyConnection = func(state tls.ConnectionState) error { return revoked.verify(state, one.RootCAs) }
	}
	return nil
}

// version returns the version of TLS in a setting, or 0 for the default.
func (s settings) version(keyword string) (uint16, error) {
	switch strings.ToLower(s[keyword]) {
	case "":
		return 0, nil
	case "tlsv1":
		return tls.VersionTLS10, nil
	case "tlsv1.1":
		return tls.VersionTLS11, nil
	case "tlsv1.2":
		return tls.VersionTLS12, nil
	case "tlsv1.3":
		return tls.VersionTLS13, nil
	}
	return 0, Error(keyword + " is invalid: write TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3")
}
