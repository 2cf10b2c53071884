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

// revocations reads the file sslcrl and the files in the directory sslcrldir. It returns nil if neither is set. A file that cannot be
// read is an error, because the connection would be less secure without it.
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
		return nil, Error("sslcrl and sslcrldir contain no usable list of revoked certificates: it must be in PEM format, and apply to all certificates of its authority")
	}
	return lists, nil
}

// add returns the lists and the lists in the text of a file. Blocks of the file that are not lists are ignored.
func (r revocations) add(text []byte) (revocations, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			continue
		}
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return nil, Error("a list of revoked certificates in sslcrl or sslcrldir is malformed")
		}
		// A critical extension can limit the list to some certificates, so a list that has one proves nothing here.
		if !slices.ContainsFunc(list.Extensions, func(e pkix.Extension) bool { return e.Critical }) {
			r = append(r, list)
		}
	}
	return r, nil
}

// verify returns an error unless a chain from the certificate of the server to a trusted authority has no revoked certificate. As in
// libpq, each authority in the chain must have a list that has not expired.
func (r revocations) verify(state tls.ConnectionState, roots *x509.CertPool) error {
	chains := state.VerifiedChains
	if chains == nil { // sslmode=verify-ca leaves out the check of the name
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
	for i := range max(1, last) { // the authority at the end is trusted, unless it is the server itself
		if err := r.check(chain[i], chain[min(i+1, last)], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// check returns an error if the certificate was revoked by its issuer, or if there is no list of the issuer for this time.
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
