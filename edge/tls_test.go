package edge

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/certs"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// authority signs certificates for tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir(), pool: x509.NewCertPool()}
	var files Cert
	a.cert, a.key, files = a.issue("authority", &x509.Certificate{
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.file = files.Cert
	a.pool.AddCert(a.cert)
	return a
}

// issue writes a certificate and its key, P-256, into files that begin with name.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, Cert) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = serial, pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	files := Cert{filepath.Join(a.dir, name+".pem"), filepath.Join(a.dir, name+".key")}
	a.write(files.Cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	a.write(files.Key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	return cert, key, files
}

func (a *authority) write(file string, text []byte) {
	a.t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// leaf issues a certificate for hosts, names or addresses, to serve with and to show.
func (a *authority) leaf(hosts ...string) Cert {
	a.t.Helper()
	template := &x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	_, _, files := a.issue(strings.ReplaceAll(hosts[0], "*", "any"), template)
	return files
}

func (a *authority) pair(files Cert) tls.Certificate {
	a.t.Helper()
	pair, err := certs.Pair(files.Cert, files.Key)
	if err != nil {
		a.t.Fatal(err)
	}
	return pair
}

// client is the config of a client that trusts a, and asks for name.
func (a *authority) client(name string) *tls.Config {
	return &tls.Config{RootCAs: a.pool, ServerName: name}
}

// secureListener is one with the certificates.
func secureListener(certs ...Cert) Listener {
	return Listener{Addr: "127.0.0.1:0", TLS: &TLS{Certs: certs}}
}

// sendTLS is send over TLS.
func (r *running) sendTLS(cfg *tls.Config, text string) *client {
	r.t.Helper()
	c := r.dial()
	c.over(cfg)
	if _, err := io.WriteString(c, text); err != nil {
		r.t.Fatal(err)
	}
	return c
}

// over goes on over TLS.
func (c *client) over(cfg *tls.Config) {
	over := tls.Client(c.Conn, cfg)
	c.Conn, c.br = over, bufio.NewReader(over)
}

func (c *client) state() tls.ConnectionState { return c.Conn.(*tls.Conn).ConnectionState() }

func TestTLSUpgrade(t *testing.T) {
	a := newAuthority(t)
	told := make(chan http.Header, 1)
	backend := listenBackend(t, func(conn net.Conn, br *bufio.Reader, r *http.Request) {
		told <- r.Header
		echo("b0")(conn, br, r)
	})
	e := start(t, Config{Listen: []Listener{secureListener(a.leaf("edge.test"))}, Membership: members(backend)})
	e.nothingLeft(func() {
		c := e.sendTLS(a.client("edge.test"), upgradeTo("/ws?user=alice")+"and frames at once")
		if answer := c.head(); answer.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("answered %s", answer.Status)
		}
		h := <-told
		if proto, fwd := h.Get("X-Forwarded-Proto"), h.Get("Forwarded"); proto != "https" || !strings.HasSuffix(fwd, ";proto=https") {
			t.Errorf("the member was told X-Forwarded-Proto %q, Forwarded %q", proto, fwd)
		}
		if got := c.line(); got != "b0/alice" {
			t.Errorf("joined %q", got)
		}
		if got, err := c.br.Peek(len("and frames at once")); string(got) != "and frames at once" {
			t.Errorf("echoed %q, %v", got, err)
		}
		_, _ = c.br.Discard(len("and frames at once"))
		if err := c.Conn.(*tls.Conn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		c.ended()
		_ = c.Close()
	})
	if got := e.metric(`selvedge_edge_session_closes_total{reason="client_closed",service="default"}`); got != "1" {
		t.Errorf("client_closed %s", got)
	}
}

func TestTLSChoosesByName(t *testing.T) {
	a := newAuthority(t)
	e := start(t, Config{
		Listen:     []Listener{secureListener(a.leaf("one.test"), a.leaf("*.two.test"), a.leaf("x.two.test"))},
		Membership: members(),
	})
	for name, want := range map[string]string{"one.test": "one.test", "y.two.test": "any.two.test", "x.two.test": "any.two.test", "other": "one.test"} {
		cfg := a.client(name)
		cfg.InsecureSkipVerify = true // of the name: the last one's is not there
		c := e.sendTLS(cfg, "")
		if err := c.Conn.(*tls.Conn).Handshake(); err != nil {
			t.Fatal(err)
		}
		if got := c.state().PeerCertificates[0].Subject.CommonName; got != want {
			t.Errorf("%s was shown the certificate of %s, want %s", name, got, want)
		}
	}
}

// What net/http answers by itself, and a client that does not speak TLS, get the edge's form too.
func TestTLSRefusals(t *testing.T) {
	a := newAuthority(t)
	e := start(t, Config{Listen: []Listener{secureListener(a.leaf("edge.test"))}, Membership: members()})
	e.sendTLS(a.client("edge.test"), "GET / HTTP/1.1\r\nHost: a b\r\nbad field\r\n\r\n").refused(http.StatusBadRequest)
	e.sendTLS(a.client("edge.test"), upgradeTo("/ws?user=a", "X-Big: "+strings.Repeat("x", 30<<10))).refused(http.StatusRequestHeaderFieldsTooLarge)
	e.sendTLS(a.client("edge.test"), upgradeTo("/ws?user=a")).refused(http.StatusServiceUnavailable)
	if text := e.send("GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n").refused(http.StatusBadRequest); !strings.Contains(text, "https") {
		t.Errorf("a plain request is told %q", text)
	}
	old := a.client("edge.test")
	old.MinVersion, old.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	if err := tls.Client(e.dial().Conn, old).Handshake(); err == nil {
		t.Error("a handshake with TLS 1.1")
	}
	testkit.Eventually(t, patience, func() bool {
		return e.metric(`selvedge_edge_refusals_total{reason="bad_handshake"}`) == "2"
	}, "both bad handshakes are counted")
}

func TestTLSClientCertificate(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	ln := secureListener(a.leaf("edge.test"))
	ln.TLS.ClientCA = a.file
	e := start(t, Config{Listen: []Listener{ln}, Membership: members(listenBackend(t, echo("b0")))})
	for name, by := range map[string]*authority{"none": nil, "a stranger's": stranger, "ours": a} {
		cfg := a.client("edge.test")
		if by != nil {
			pair := by.pair(by.leaf("someone"))
			cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		c := e.sendTLS(cfg, upgradeTo("/ws?user=a"))
		answer, err := http.ReadResponse(c.br, nil) //nolint:bodyclose // the test closes the connection
		if by != a {
			if err == nil || !strings.Contains(err.Error(), "tls: ") {
				t.Errorf("certificate %s: %v, %v", name, answer, err)
			}
		} else if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("certificate %s: %v, %v", name, answer, err)
		}
	}
}

// A ticket of one edge is good at another with the same key, also once that has become the second; a third has a key of its own.
func TestTLSTicketsAreShared(t *testing.T) {
	a := newAuthority(t)
	key := func() string {
		var k [32]byte
		_, _ = rand.Read(k[:])
		return base64.StdEncoding.EncodeToString(k[:])
	}
	shared, newer := key(), key()
	edge := func(name, keys string) *running {
		file := filepath.Join(a.dir, name)
		a.write(file, []byte(keys))
		ln := secureListener(a.leaf("edge.test"))
		ln.TLS.TicketKeys = file
		return start(t, Config{Listen: []Listener{ln}, Membership: members(listenBackend(t, echo("b0")))})
	}
	cfg := a.client("edge.test")
	cfg.ClientSessionCache = tls.NewLRUClientSessionCache(1)
	for _, c := range []struct {
		edge    *running
		resumes bool
	}{
		{edge("first", shared+"\n"), false},
		{edge("second", "# rotated\n\n"+newer+"\n"+shared), true},
		{edge("third", newer), true}, // the second has given it one by its first key
		{edge("other", shared), false},
	} {
		conn := c.edge.sendTLS(cfg, upgradeTo("/ws?user=a"))
		conn.head()
		conn.line() // the ticket comes before it
		if got := conn.state().DidResume; got != c.resumes {
			t.Errorf("resumed: %v, want %v", got, c.resumes)
		}
		_ = conn.Close()
	}
}

// New certificates are shown to new connections, broken ones change nothing, and the session that was there stays.
func TestReloadCertificates(t *testing.T) {
	a := newAuthority(t)
	registry := discovery.NewMemory()
	registry.Put(DefaultService, discovery.Member{ID: "b0", Addr: listenBackend(t, echo("b0")), Weight: 1})
	cfg := reloadable(registry)
	files := a.leaf("before.test")
	cfg.Listen = []Listener{secureListener(files)}
	e := start(t, cfg)
	insecure := &tls.Config{InsecureSkipVerify: true}
	shown := func() string {
		c := e.sendTLS(insecure, upgradeTo("/ws?user=b"))
		defer c.Close()
		c.head()
		return c.state().PeerCertificates[0].Subject.CommonName
	}
	session := e.sendTLS(insecure, upgradeTo("/ws?user=a"))
	session.head()
	session.line()

	renewed := a.leaf("after.test")
	move(t, renewed.Cert, files.Cert)
	if err := e.Reload(cfg); err == nil || !strings.Contains(err.Error(), files.Cert) {
		t.Errorf("a certificate without its key: %v", err)
	}
	if got := shown(); got != "before.test" {
		t.Errorf("after a broken reload the certificate is of %s", got)
	}
	move(t, renewed.Key, files.Key)
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != "after.test" {
		t.Errorf("after the reload the certificate is of %s", got)
	}
	plain := cfg
	plain.Listen = []Listener{{Addr: "127.0.0.1:0"}}
	if err := e.Reload(plain); err == nil || !strings.Contains(err.Error(), "tls") {
		t.Errorf("a reload without TLS: %v", err)
	}
	say(session, "still here\n")
	if got := session.line(); got != "still here" {
		t.Errorf("the session says %q", got)
	}
}

func move(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

func TestHTTP2(t *testing.T) {
	a := newAuthority(t)
	backend := listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\n%s", r.Header.Get("X-Forwarded-Proto"))
	})
	e := start(t, Config{Listen: []Listener{secureListener(a.leaf("edge.test"))}, Membership: members(backend)})
	transport := &http.Transport{TLSClientConfig: a.client("edge.test"), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	for _, target := range []string{"/?user=a", "/"} {
		answer, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + e.Addr().String() + target)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		ok := target == "/?user=a" && answer.StatusCode == http.StatusOK && string(body) == "https" ||
			target == "/" && answer.StatusCode == http.StatusBadRequest && bytes.HasPrefix(body, []byte(`{"error":`))
		if answer.ProtoMajor != 2 || err != nil || !ok {
			t.Errorf("%s: %s %s %q, %v", target, answer.Proto, answer.Status, body, err)
		}
	}
}

// The operator's listener by TLS: a client certificate stands in for a token, HTTP/2 is spoken, and a reload brings another certificate.
func TestAdminTLS(t *testing.T) {
	a := newAuthority(t)
	files := a.leaf("before.test", "127.0.0.1")
	cfg := reloadable(discovery.NewMemory())
	cfg.Admin = Admin{Addr: "0.0.0.0:0", TLS: &TLS{Certs: []Cert{files}}}
	if _, err := New(cfg); err == nil || !strings.Contains(err.Error(), "client_ca") {
		t.Errorf("off loopback, without token and certificates: %v", err)
	}
	cfg.Admin.TLS.ClientCA = a.file
	e := start(t, cfg)
	own := a.pair(a.leaf("operator"))
	get := func(certificates ...tls.Certificate) (answer, error) {
		client := a.client("")
		client.Certificates = certificates
		transport := &http.Transport{TLSClientConfig: client, ForceAttemptHTTP2: true, DisableKeepAlives: true}
		_, port, _ := net.SplitHostPort(e.AdminAddr().String())
		got, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://127.0.0.1:" + port + "/metrics")
		if err == nil {
			_ = got.Body.Close()
		}
		return answer{got}, err
	}
	if answer, err := get(); err == nil {
		t.Errorf("without a certificate: %s", answer.Status)
	}
	for _, want := range []string{"before.test", "after.test"} {
		answer, err := get(own)
		if err != nil {
			t.Fatal(err)
		}
		if shown := answer.TLS.PeerCertificates[0].Subject.CommonName; answer.StatusCode != http.StatusOK || answer.ProtoMajor != 2 || shown != want {
			t.Errorf("%s %s by %s, want %s", answer.Proto, answer.Status, shown, want)
		}
		renewed := a.leaf("after.test", "127.0.0.1")
		cfg.Admin.TLS = &TLS{Certs: []Cert{renewed}, ClientCA: a.file}
		if err := e.Reload(cfg); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTicketKeys(t *testing.T) {
	k := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		"":                         "no key",
		"\n# only this\n":          "no key",
		k + "\nabcd\n":             "line 2",
		"\n\nnonsense!":            "line 3",
		strings.Repeat(k+"\n", 17): "line 17",
		" " + k + " \r\n#\n\n" + k: "",
		"q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=": "",
	} {
		keys, err := ticketKeys(text)
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) || err == nil && len(keys) == 0 {
			t.Errorf("%q: %d keys, %v, want %q", text, len(keys), err, want)
		}
	}
}

func TestTLSFilesAreNamed(t *testing.T) {
	a := newAuthority(t)
	good, other := a.leaf("edge.test"), a.leaf("other.test")
	for name, c := range map[string]struct {
		tls  TLS
		want string
	}{
		"no certificate":    {TLS{}, "none: name"},
		"missing":           {TLS{Certs: []Cert{{"nowhere.pem", good.Key}}}, "nowhere.pem"},
		"another's key":     {TLS{Certs: []Cert{{good.Cert, other.Key}}}, other.Key},
		"no authority":      {TLS{Certs: []Cert{good}, ClientCA: good.Key}, "holds no certificate"},
		"missing keys":      {TLS{Certs: []Cert{good}, TicketKeys: "nokeys"}, "nokeys"},
		"keys that are not": {TLS{Certs: []Cert{good}, TicketKeys: good.Key}, "line 1"},
	} {
		_, err := New(Config{Listen: []Listener{{Addr: ":0", TLS: &c.tls}}, Membership: members()})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "listen[0].tls.") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the file says of TLS and the PROXY protocol arrives; an empty tls is none.
func TestTLSFromSettings(t *testing.T) {
	file := filepath.Join(t.TempDir(), "edge.yaml")
	err := os.WriteFile(file, []byte(`
listen:
  - {addr: ":443", tls: {certs: [{cert: a.pem, key: a.key}, {cert: b.pem, key: b.key}], client_ca: ca.pem, ticket_keys: keys}, proxy_protocol: true}
  - {addr: ":80", tls: {}, redirect_https: true}
backends: b1=127.0.0.1:1
services:
  default: {tls: {ca: ca.pem, cert: e.pem, key: e.key, server_name: m.test}, proxy_protocol: v2}
  other: {tls: {}}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	settings, err := config.Load(config.Sources{File: file, Env: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := FromSettings(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	secure := &TLS{Certs: []Cert{{"a.pem", "a.key"}, {"b.pem", "b.key"}}, ClientCA: "ca.pem", TicketKeys: "keys"}
	want := []Listener{{Addr: ":443", TLS: secure, ProxyProtocol: true}, {Addr: ":80", RedirectHTTPS: true}}
	if !reflect.DeepEqual(cfg.Listen, want) {
		t.Errorf("listen %+v", cfg.Listen)
	}
	own, other := cfg.Services["default"], cfg.Services["other"]
	if own.TLS == nil || *own.TLS != (MemberTLS{"ca.pem", "e.pem", "e.key", "m.test"}) || own.ProxyProtocol != ProxyV2 || other.TLS != nil {
		t.Errorf("services %+v, %+v", own, other)
	}
}
