package rpc_test

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/selvedge/selvedge/internal/certs"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/testkit"
)

// Both sides show certificates, speak HTTP/2, and take renewed files with the next connection; files that are no good leave the last good ones.
func TestMutualTLS(t *testing.T) {
	members, clients := testkit.NewAuthority(t, "members"), testkit.NewAuthority(t, "clients")
	var shows atomic.Pointer[tls.Config]
	serve := func(name string) {
		pair, err := certs.Pair(members.Issue(name, "127.0.0.1"))
		if err != nil {
			t.Fatal(err)
		}
		pool, err := certs.Pool(clients.File)
		if err != nil {
			t.Fatal(err)
		}
		shows.Store(&tls.Config{NextProtos: []string{"h2", "http/1.1"}, Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	}
	serve("first")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(rpc.Listener(ln, shows.Load)) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	get := func(secure func() *tls.Config) (body, shown string, err error) {
		client, closeAll := rpc.Client("", secure)
		defer closeAll()
		response, err := client.Get(rpc.URL(ln.Addr().String(), true))
		if err != nil {
			return "", "", err
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		return string(text), response.TLS.PeerCertificates[0].Subject.CommonName, err
	}

	cert, key := clients.Issue("me")
	follow := func(c rpc.Credentials) func() *tls.Config {
		secure, err := c.Follow()
		if err != nil {
			t.Fatal(err)
		}
		return secure
	}
	secure := follow(rpc.Credentials{CA: members.File, Cert: cert, Key: key})
	if body, shown, err := get(secure); body != "HTTP/2.0 me" || shown != "first" || err != nil {
		t.Fatalf("%q by %q, %v", body, shown, err)
	}
	serve("second")
	other := testkit.NewAuthority(t, "clients")
	theirs, _ := other.Issue("me")
	text, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cert, text, 0o600); err != nil { // half of a renewal: it does not fit the key
		t.Fatal(err)
	}
	if body, shown, err := get(secure); body != "HTTP/2.0 me" || shown != "second" || err != nil {
		t.Errorf("with files that do not fit: %q by %q, %v", body, shown, err)
	}
	if _, err := (rpc.Credentials{Cert: cert, Key: key}).Follow(); err == nil || !strings.Contains(err.Error(), cert) {
		t.Errorf("files that do not fit, from the start: %v", err)
	}
	clients.Issue("me")
	for name, c := range map[string]rpc.Credentials{
		"no certificate":          {CA: members.File},
		"a stranger's":            {CA: members.File, Cert: theirs, Key: strings.TrimSuffix(theirs, ".pem") + ".key"},
		"a server that it is not": {CA: members.File, Cert: cert, Key: key, ServerName: "elsewhere.example"},
		"another authority":       {CA: clients.File, Cert: cert, Key: key},
	} {
		if body, _, err := get(follow(c)); err == nil {
			t.Errorf("%s: %q", name, body)
		}
	}
	if body, _, err := get(nil); err == nil { // the system's authorities do not know ours
		t.Errorf("by Go's defaults: %q", body)
	}
}
