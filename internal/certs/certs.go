// Package certs reads certificates and keys from PEM files. Errors name the file.
//
//	pair, err := certs.Pair("edge.pem", "edge-key.pem")
//	pool, err := certs.Pool("ca.pem")
package certs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Pair reads a certificate, with its chain, and its key.
func Pair(cert, key string) (tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return pair, fmt.Errorf("%s with the key %s: %w", cert, key, err)
	}
	return pair, nil
}

// Pool reads the certificates of those who are trusted to sign others', from all the files.
func Pool(files ...string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if !pool.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", file)
		}
	}
	return pool, nil
}
