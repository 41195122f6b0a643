package edge

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/selvedge/selvedge/internal/certs"
	"github.com/selvedge/selvedge/internal/config"
)

// TLS is how a listener talks to clients: TLS 1.2 or later with Go's choice of ciphers, HTTP/2 and HTTP/1.1. The files are read by New.
type TLS struct {
	// Certs are what the listener can show. A client gets the first that fits the name it asks for, or the first of all.
	Certs []Cert
	// ClientCA is a file of PEM certificates: a client must show one that they have signed. "": none is asked for.
	ClientCA string
	// TicketKeys is a file of keys for session tickets, see ticketKeys, so that a client can resume at another edge. "": each
	// edge makes its own, which end with it.
	TicketKeys string
}

// Cert names the PEM files of a certificate, with its chain, and of its key.
type Cert struct{ Cert, Key string }

// maxTicketKeys is how many keys are tried on a ticket: one in use, and enough for a slow rotation.
const maxTicketKeys = 16

// serverConfig reads the files that t names. The error says which of them is wrong.
func (t *TLS) serverConfig() (*tls.Config, error) {
	c := &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Small records at the beginning cost a system call each, and WebSocket messages are small anyway.
		DynamicRecordSizingDisabled: true,
	}
	if len(t.Certs) == 0 {
		return nil, config.Wrongf("certs", "none: name a certificate and its key")
	}
	for i, files := range t.Certs {
		pair, err := certs.Pair(files.Cert, files.Key)
		if err != nil {
			return nil, config.Under(fmt.Sprintf("certs[%d]", i), err)
		}
		c.Certificates = append(c.Certificates, pair)
	}
	if t.ClientCA != "" {
		pool, err := certs.Pool(t.ClientCA)
		if err != nil {
			return nil, config.Under("client_ca", err)
		}
		c.ClientCAs, c.ClientAuth = pool, tls.RequireAndVerifyClientCert
	}
	if t.TicketKeys != "" {
		text, err := os.ReadFile(t.TicketKeys)
		if err != nil {
			return nil, config.Under("ticket_keys", err)
		}
		keys, err := ticketKeys(string(text))
		if err != nil {
			return nil, config.Under("ticket_keys", fmt.Errorf("%s: %w", t.TicketKeys, err))
		}
		c.SetSessionTicketKeys(keys)
	}
	return c, nil
}

// ticketKeys reads keys of 32 bytes, one to a line, in base64 (`openssl rand -base64 32`) or hexadecimal; empty lines and those that
// begin with # are left out. The first encrypts new tickets, all of them are tried on those that clients bring: put a new key second
// everywhere, then first everywhere, and take the old one out when its tickets (7 days) are over.
func ticketKeys(text string) (keys [][32]byte, err error) {
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := hex.DecodeString(line)
		if err != nil {
			key, err = base64.StdEncoding.DecodeString(line)
		}
		if err != nil || len(key) != 32 {
			return nil, fmt.Errorf("line %d: want 32 bytes in base64 or hexadecimal, as `openssl rand -base64 32` makes them", n)
		}
		if len(keys) == maxTicketKeys {
			return nil, fmt.Errorf("line %d: more than %d keys", n, maxTicketKeys)
		}
		keys = append(keys, [32]byte(key))
	}
	if len(keys) == 0 {
		return nil, errors.New("no key in it: put one in, as `openssl rand -base64 32` makes them")
	}
	return keys, nil
}

// serverConfigs are the TLS settings of the listeners, by their place in Config.Listen; nil for those without.
func serverConfigs(listeners []Listener) ([]*tls.Config, error) {
	configs := make([]*tls.Config, len(listeners))
	for i, l := range listeners {
		if l.TLS == nil {
			continue
		}
		c, err := l.TLS.serverConfig()
		if err != nil {
			return nil, config.Under(fmt.Sprintf("listen[%d].tls", i), err)
		}
		configs[i] = c
	}
	return configs, nil
}
