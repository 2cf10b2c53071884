package connstring

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// revocations are lists of revoked certificates.
type revocations []*x509.RevocationList

// revocations reads the file sslcrl and the files in the directory sslcrldir. It returns nil if both settings are
// missing. A file that cannot be read is an error, because the connection would be less secure without the file.
func (s settings) revocations() (lists revocations, err error) {
	var files []string
	if file := s["sslcrl"]; file != "" {
		files = append(files, file)
	}
	if dir := s["sslcrldir"]; dir != "" {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, Error("the directory of sslcrldir cannot be read")
		}
		for _, entry := range entries {
			if !entry.IsDir() {
				files = append(files, filepath.Join(dir, entry.Name()))
			}
		}
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, Error("a file of sslcrl or sslcrldir cannot be read")
		}
		if lists, err = lists.add(text); err != nil {
			return nil, err
		}
	}
	if lists == nil && (s["sslcrl"] != "" || s["sslcrldir"] != "") {
		return nil, Error("sslcrl and sslcrldir contain no usable list of revoked certificates: a list must be in PEM format, and apply to all certificates of its authority")
	}
	return lists, nil
}

// add appends the lists in the text of a file to r, and returns the result. It ignores PEM blocks that are not lists.
func (r revocations) add(text []byte) (revocations, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, Error("a list of revoked certificates in sslcrl or sslcrldir is malformed")
		}
		// A critical extension can limit a list to some certificates. A certificate that is not on such a list may
		// still be revoked, so the list is left out.
		if !slices.ContainsFunc(list.Extensions, func(e pkix.Extension) bool { return e.Critical }) {
			r = append(r, list)
		}
	}
	return r, nil
}

// verify checks that a chain from the certificate of the server to a trusted authority contains no revoked certificate.
// As in libpq, each authority in the chain must have a list that has not expired. verify returns an error if no chain
// passes the check.
func (r revocations) verify(state tls.ConnectionState, roots *x509.CertPool) error {
	chains := state.VerifiedChains
	if chains == nil { // with sslmode=verify-ca, pgx verifies the chain itself, because crypto/tls would also check the name
		options := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, certificate := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(certificate)
		}
		var err error
		if chains, err = state.PeerCertificates[0].Verify(options); err != nil {
			return err
		}
	}
	var errs []error
	for _, chain := range chains {
		err := r.verifyChain(chain)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (r revocations) verifyChain(chain []*x509.Certificate) error {
	last := len(chain) - 1
	for i := range max(1, last) { // the authority at the end is trusted, so it is checked only if it is the server itself
		if err := r.check(chain[i], chain[min(i+1, last)], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// check returns an error if the certificate was revoked by its issuer, or if no list of the issuer is valid at the time
// now.
func (r revocations) check(certificate, issuer *x509.Certificate, now time.Time) error {
	found := false
	for _, list := range r {
		if !bytes.Equal(list.RawIssuer, issuer.RawSubject) || list.CheckSignatureFrom(issuer) != nil {
			continue
		}
		for _, entry := range list.RevokedCertificateEntries {
			if entry.SerialNumber.Cmp(certificate.SerialNumber) == 0 {
				return fmt.Errorf("the certificate of %q was revoked on %s (sslcrl, sslcrldir)", certificate.Subject, entry.RevocationTime.Format(time.DateOnly))
			}
		}
		if !now.Before(list.ThisUpdate) && (list.NextUpdate.IsZero() || now.Before(list.NextUpdate)) {
			found = true
		}
	}
	if !found {
		return fmt.Errorf("sslcrl and sslcrldir have no current list of the certificates that %q has revoked", issuer.Subject)
	}
	return nil
}
