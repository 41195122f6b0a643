package backend_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/identity"
)

// secretFile holds secrets, each of one digit.
func secretFile(t testing.TB, digits ...string) (string, *identity.Secrets) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets")
	var text strings.Builder
	for _, d := range digits {
		text.WriteString(strings.Repeat(d, 64) + "\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	secrets, err := identity.ReadSecrets(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, secrets
}

// signer is an edge that signs.
type signer struct {
	secrets *identity.Secrets
	service string
	member  string
	skew    time.Duration
}

func (s signer) sign(user, expires, id string) string {
	return s.secrets.Sign(&identity.Claims{Service: s.service, Member: s.member, RequestID: id, User: user, Expires: expires}, time.Now().Add(s.skew))
}

// wantRefusal reads an answer in JSON and checks what it says.
func (s *socket) wantRefusal(status int, reason string) (resolve string) {
	s.t.Helper()
	answer := s.answer()
	body, _ := io.ReadAll(answer.Body)
	var says struct{ Error, Reason, Resolve string }
	if err := json.Unmarshal(body, &says); err != nil || answer.StatusCode != status || says.Reason != reason || says.Error == "" {
		s.t.Errorf("answered %s %s; want %d for reason %s, %v", answer.Status, body, status, reason, err)
	}
	if got := answer.Header.Get("Location"); (status == 421 || got != "") && got != says.Resolve {
		s.t.Errorf("Location %q, resolve %q", got, says.Resolve)
	}
	return says.Resolve
}

// Only an edge's word counts: each way to be none has an answer of its own.
func TestWhoIsBelieved(t *testing.T) {
	path, secrets := secretFile(t, "1")
	_, strange := secretFile(t, "2")
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.EdgeSecretFile = path
		cfg.HTTP = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			user, _ := backend.UserOf(r)
			fmt.Fprintf(w, "user %q", user)
		})
	})
	m := c.members[0]
	edge := signer{secrets, "default", "b1", 0}
	used := edge.sign("alice", "", "7")
	upgrade := func(lines ...string) string { return handshake("alice", lines...) }
	signed := func(signature string, lines ...string) string {
		return upgrade(append([]string{"X-Request-Id: 7", "X-Selvedge-Signature: " + signature}, lines...)...)
	}
	plain := func(lines ...string) string {
		return "GET / HTTP/1.1\r\nHost: chat\r\nConnection: close\r\n" + strings.Join(append(lines, "", ""), "\r\n")
	}
	with := func(change func(*signer)) signer { e := edge; change(&e); return e }
	for _, test := range []struct {
		name, request string
		status        int
		says          string // the reason, or of a 200 the body
	}{
		{"an edge", signed(used), 101, ""},
		{"the same again", signed(used), 401, "signature_replayed"},
		{"nobody", upgrade(), 401, "unsigned"},
		{"an edge of another service", signed(with(func(e *signer) { e.service = "game" }).sign("alice", "", "7")), 401, "signature_forged"},
		{"meant for another member", signed(with(func(e *signer) { e.member = "b2" }).sign("alice", "", "7")), 401, "signature_forged"},
		{"another user's", signed(edge.sign("bob", "", "7")), 401, "signature_forged"},
		{"that of a request without a user", signed(edge.sign("", "", "7")), 401, "signature_forged"},
		{"another secret", signed(with(func(e *signer) { e.secrets = strange }).sign("alice", "", "7")), 401, "signature_unknown_key"},
		{"an old one", signed(with(func(e *signer) { e.skew = -time.Minute }).sign("alice", "", "7")), 401, "signature_clock"},
		{"one of the future", signed(with(func(e *signer) { e.skew = time.Minute }).sign("alice", "", "7")), 401, "signature_clock"},
		{"nonsense", signed("x"), 401, "signature_malformed"},
		{"two signatures", signed(edge.sign("alice", "", "7"), "X-Selvedge-Signature: x"), 401, "signature_malformed"},
		{"two users", signed(edge.sign("alice", "", "7"), "X-Selvedge-User: alice", "X-Selvedge-User: bob"), 401, "signature_malformed"},
		{"an empty end", signed(edge.sign("alice", "", "7"), "X-Selvedge-Expires: "), 401, "signature_malformed"},
		{"an end nobody signed", signed(edge.sign("alice", "", "7"), "X-Selvedge-Expires: 2099-01-01T00:00:00Z"), 401, "signature_forged"},

		{"a health check", plain(), 200, `user ""`},
		{"plain, signed", plain("X-Request-Id: 7", "X-Selvedge-User: bob", "X-Selvedge-Signature: "+edge.sign("bob", "", "7")), 200, `user "bob"`},
		{"plain, unsigned", plain("X-Selvedge-User: bob"), 401, "unsigned"},
		{"plain, in another spelling", plain("x_selvedge_user: bob"), 401, "unsigned"},
		{"plain, forged", plain("X-Selvedge-User: bob", "X-Selvedge-Signature: "+edge.sign("eve", "", "")), 401, "signature_forged"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := m.socket(t)
			s.write([]byte(test.request))
			if test.status >= 400 {
				s.wantRefusal(test.status, test.says)
				return
			}
			answer := s.answer()
			body := ""
			if test.status == 200 {
				all, _ := io.ReadAll(answer.Body)
				body = string(all)
			}
			if answer.StatusCode != test.status || body != test.says {
				t.Errorf("answered %s %q", answer.Status, body)
			}
		})
	}
	if n := metric(t, m.registry, `selvedge_backend_distrusts_total{reason=signature_forged}`); n != 6 {
		t.Errorf("%v forged signatures counted", n)
	}
}

// Without a secret those are believed who come from the networks that are set; and nobody else, wherever the handlers are mounted.
func TestTrustedEdges(t *testing.T) {
	for _, test := range []struct {
		networks []netip.Prefix
		peer     string
		status   int
	}{
		{nil, "127.0.0.1:5", 426},
		{nil, "[::1]:5", 426},
		{nil, "10.0.0.1:5", 401},
		{nil, "@", 401},
		{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "10.0.0.1:5", 426},
		{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "[::ffff:10.0.0.1]:5", 426},
		{[]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, "127.0.0.1:5", 401},
		{[]netip.Prefix{netip.MustParsePrefix("fe80::/10")}, "[fe80::1%eth0]:5", 426},
	} {
		c := newCluster(t, 1, func(cfg *backend.Config) { cfg.TrustedEdges = test.networks })
		b := c.members[0]
		served := b.FromEdges(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusUpgradeRequired) }))
		r := httptest.NewRequest(http.MethodGet, "http://chat/", nil)
		r.RemoteAddr = test.peer
		r.Header.Set(backend.UserHeader, "alice")
		for what, handler := range map[string]http.Handler{"FromEdges": served, "Handler": b.Handler()} {
			if what == "Handler" {
				r.Header.Set("Upgrade", "websocket")
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
				r.Header.Set("Sec-WebSocket-Version", "13")
				if test.status != 401 {
					continue // it would become a session
				}
			}
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, r)
			if w.Code != test.status {
				t.Errorf("%s, %s of %v: %d, want %d", what, test.peer, test.networks, w.Code, test.status)
			}
		}
	}
}

// A service that guards its whole mux: the signature is looked at once.
func TestHandlerBehindFromEdges(t *testing.T) {
	path, secrets := secretFile(t, "1")
	c := newCluster(t, 1, func(cfg *backend.Config) { cfg.EdgeSecretFile = path })
	m := c.members[0]
	server := httptest.NewServer(m.FromEdges(m.Handler()))
	defer server.Close()
	for lines, status := range map[string]int{
		"X-Selvedge-Signature: " + (signer{secrets, "default", "b1", 0}).sign("alice", "", ""): 101,
		"X-None: x": 401,
	} {
		s := dialSocket(t, server.Listener.Addr().String())
		s.write([]byte(handshake("alice", lines)))
		if answer := s.answer(); answer.StatusCode != status {
			t.Errorf("%s: %s, want %d", lines, answer.Status, status)
		}
	}
}

// A session ends with the user's token, and one whose token is over does not begin.
func TestSessionEndsWithItsToken(t *testing.T) {
	reasons := make(chan backend.CloseReason, 1)
	c := newCluster(t, 1, func(cfg *backend.Config) {
		cfg.OnClose = func(_ *backend.Session, reason backend.CloseReason) { reasons <- reason }
	})
	m := c.members[0]
	at := func(d time.Duration) string {
		return "X-Selvedge-Expires: " + time.Now().Add(d).Format(time.RFC3339Nano)
	}

	s := m.socket(t)
	began := time.Now()
	s.write([]byte(handshake("alice", at(300*time.Millisecond))))
	if answer := s.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(answer.Status)
	}
	s.want("close 1008 token expired", "end")
	if d := time.Since(began); d < 300*time.Millisecond {
		t.Errorf("closed after %v", d)
	}
	s.Close()
	wantReason(t, reasons, backend.Expired)

	s = m.socket(t)
	s.write([]byte(handshake("alice", at(-time.Millisecond))))
	s.wantRefusal(401, "token_expired")
	s = m.socket(t)
	s.write([]byte(handshake("alice", "X-Selvedge-Expires: tomorrow")))
	if answer := s.answer(); answer.StatusCode != http.StatusBadRequest {
		t.Errorf("an end that is no time: %s", answer.Status)
	}
	s = m.socket(t) // so far away that nanoseconds overflow
	s.write([]byte(handshake("alice", "X-Selvedge-Expires: 9999-12-31T23:59:59Z")))
	if answer := s.answer(); answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(answer.Status)
	}
	s.write(closing(1000, ""))
	s.want("close 1000", "end")
	s.Close()
	wantReason(t, reasons, backend.ClosedByClient)
}
