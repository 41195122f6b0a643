package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"
)

const (
	soon    = 30 * 24 * time.Hour // when whoever renews by hand should know, and a machine has failed to for weeks
	tooSoon = 7 * 24 * time.Hour
)

// certificates reads those that the settings name.
func (e *examination) certificates() {
	const check = "certificates"
	type named struct{ key, file string }
	var files []named
	s := e.Settings
	for i, l := range s.Listen {
		if l.TLS == nil {
			continue
		}
		key := fmt.Sprintf("listen[%d].tls", i)
		for j, c := range l.TLS.Certs {
			files = append(files, named{fmt.Sprintf("%s.certs[%d].cert", key, j), c.Cert})
		}
		files = append(files, named{key + ".client_ca", l.TLS.ClientCA})
	}
	if t := s.Admin.TLS; t != nil {
		files = append(files, named{"admin.tls.cert", t.Cert}, named{"admin.tls.client_ca", t.ClientCA})
	}
	if t := s.Backend.RPC.TLS; t != nil {
		files = append(files, named{"backend.rpc.tls.cert", t.Cert}, named{"backend.rpc.tls.client_ca", t.ClientCA})
	}
	for _, name := range slices.Sorted(maps.Keys(s.Services)) {
		if t := s.Services[name].TLS; t != nil {
			files = append(files, named{"services." + name + ".tls.cert", t.Cert}, named{"services." + name + ".tls.ca", t.CA})
		}
	}
	seen := 0
	for _, f := range files {
		if f.file == "" {
			continue
		}
		seen++
		if level, text := e.certificate(f.file); level != Good {
			e.found(check, level, fmt.Sprintf("%s: %s: %s", f.key, f.file, text), "renew it; a running process reads the new file by itself")
		} else {
			e.good(check, fmt.Sprintf("%s: %s: %s", f.key, f.file, text))
		}
	}
	if seen == 0 {
		e.good(check, "none is configured")
	}
}

// certificate judges a file by that of its certificates which ends first.
func (e *examination) certificate(file string) (Level, string) {
	rest, err := os.ReadFile(file)
	if err != nil {
		return Bad, "cannot be read: " + err.Error()
	}
	var first *x509.Certificate
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return Bad, err.Error()
		}
		if c.NotBefore.After(e.now()) {
			return Bad, fmt.Sprintf("%s is not valid before %s", c.Subject, c.NotBefore.Format(time.RFC3339))
		}
		if first == nil || c.NotAfter.Before(first.NotAfter) {
			first = c
		}
	}
	if first == nil {
		return Bad, "holds no certificate in PEM"
	}
	left := first.NotAfter.Sub(e.now())
	text := fmt.Sprintf("%s ends in %d days, on %s", first.Subject, int(left.Hours())/24, first.NotAfter.Format(time.DateOnly))
	switch {
	case left <= 0:
		return Bad, fmt.Sprintf("%s has ended on %s", first.Subject, first.NotAfter.Format(time.DateOnly))
	case left < tooSoon:
		return Bad, text
	case left < soon:
		return Warning, text
	default:
		return Good, text
	}
}
