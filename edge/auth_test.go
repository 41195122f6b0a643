package edge

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// issuer signs tokens with one key.
type issuer struct {
	t   testing.TB
	kid string
	key *ecdsa.PrivateKey
}

func newIssuer(t testing.TB, kid string) *issuer {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t, kid, key}
}

// set is the issuer's key, published.
func (i *issuer) set() []byte {
	store := jwkset.NewMemoryStorage()
	jwk, err := jwkset.NewJWKFromKey(i.key.Public(), jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{KID: i.kid}})
	if err == nil {
		err = store.KeyWrite(i.t.Context(), jwk)
	}
	if err != nil {
		i.t.Fatal(err)
	}
	text, err := store.JSONPublic(i.t.Context())
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

// file publishes the key in a file.
func (i *issuer) file() string {
	path := filepath.Join(i.t.TempDir(), "jwks.json")
	if err := os.WriteFile(path, i.set(), 0o600); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// token is user's until expires, for the audience chat.
func (i *issuer) token(user string, expires time.Time) string {
	token := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{"sub": user, "aud": "chat", "exp": expires.Unix()})
	token.Header["kid"] = i.kid
	text, err := token.SignedString(i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return text
}

var anHour = time.Now().Add(time.Hour).Truncate(time.Second)

func TestTokens(t *testing.T) {
	is := newIssuer(t, "k")
	token := is.token("alice", anHour)
	cfg := Config{
		Routes: []Route{{Key: "jwt:sub"}, {Path: "/open", Key: "none"}},
		Auth:   Auth{JWKS: is.file(), Audience: "chat", Token: "header,cookie:sid,query:access_token,protocol"},
	}
	const spoofed = "X-Selvedge-Expires: 2100-01-01T00:00:00Z"
	for name, c := range map[string]struct {
		target string
		fields []string
		query  string // as the backend sees it
	}{
		"header":   {"/x?a=1", []string{"Authorization: Bearer " + token, spoofed}, "a=1"},
		"cookie":   {"/x?a=1", []string{"Cookie: sid=" + token, spoofed}, "a=1"},
		"query":    {"/x?a=%31&access_token=" + token + "&b", []string{spoofed}, "a=%31&b"},
		"twice":    {"/x?access%5Ftoken=" + token, []string{"Authorization: Bearer " + token}, ""},
		"protocol": {"/x", []string{"Sec-WebSocket-Protocol: chat, bearer, " + token + ", v2"}, ""},
	} {
		urls := make(chan string, 2)
		heads := make(chan http.Header, 2)
		cfg.Membership = members(listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
			urls <- r.RequestURI
			heads <- r.Header
			if wantsWebSocket(r) {
				say(conn, "%s", switched(r, ""))
			} else {
				say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
		}))
		e := start(t, cfg)
		for _, upgrade := range []bool{true, false} {
			request, status := upgradeTo(c.target, c.fields...), http.StatusSwitchingProtocols
			if !upgrade {
				request, status = "GET "+c.target+" HTTP/1.1\r\nHost: edge.test\r\n"+strings.Join(append(c.fields, ""), "\r\n")+"\r\n", http.StatusOK
			}
			got := e.send(request).head()
			if got.StatusCode != status {
				body, _ := io.ReadAll(got.Body)
				t.Fatalf("%s: %s %s", name, got.Status, body)
			}
			_, query, _ := strings.Cut(<-urls, "?")
			h := <-heads
			if query != c.query || h.Get("X-Selvedge-User") != "alice" || h.Get("X-Selvedge-Expires") != anHour.UTC().Format(time.RFC3339) ||
				len(h["X-Selvedge-Expires"]) != 1 {
				t.Errorf("%s, %v: the backend sees %q, %v", name, upgrade, query, h)
			}
			if name != "protocol" {
				continue
			}
			if offered := h.Get("Sec-WebSocket-Protocol"); offered != "chat, v2" {
				t.Errorf("the backend is offered %q", offered)
			}
			if upgrade && got.Header.Get("Sec-WebSocket-Protocol") != "bearer" {
				t.Errorf("picked: %q; browsers want one of what they offered", got.Header.Get("Sec-WebSocket-Protocol"))
			}
		}
		if c := e.send(upgradeTo("/open", "Authorization: Bearer nonsense")); c.head().StatusCode != http.StatusSwitchingProtocols {
			t.Error("a route without tokens asks for one")
		}
		<-urls
		if h := <-heads; h.Get("Authorization") != "Bearer nonsense" || h["X-Selvedge-Expires"] != nil {
			t.Errorf("a route without tokens: %v", h)
		}
		if n := e.handedOver(); !slowPath && n != 1 {
			t.Errorf("%s: %d were handed over, want the plain one", name, n)
		}
	}
}

func TestTokensRefused(t *testing.T) {
	is, other := newIssuer(t, "k"), newIssuer(t, "other")
	cfg := Config{
		Membership: members(listenBackend(t, echo("b0"))), Routes: []Route{{Key: "jwt:sub"}},
		Auth: Auth{JWKS: is.file(), Audience: "chat", OutlivesToken: true},
	}
	e := start(t, cfg)
	e.nothingLeft(func() {
		for reason, fields := range map[string]string{
			"no_token": "X: y", "bad_token": "Authorization: Bearer " + is.token("alice", time.Now().Add(-time.Minute)),
			"unknown_key": "Authorization: Bearer " + other.token("alice", anHour),
		} {
			if says := e.send(upgradeTo("/ws?user=alice", fields)).refused(http.StatusUnauthorized); !strings.HasPrefix(says, "token: Authorization: ") {
				t.Errorf("%s: says %q", reason, says)
			}
			if n := e.metric(fmt.Sprintf(`selvedge_edge_refusals_total{reason=%q}`, reason)); n != "1" {
				t.Errorf("%s: counted %s", reason, n)
			}
		}
		c := e.send(upgradeTo("/ws", "Authorization: Bearer "+is.token("alice", anHour)))
		if c.head().StatusCode != http.StatusSwitchingProtocols || c.line() != "b0/alice" {
			t.Error("no session")
		}
		e.hangUp()
	})
}

// The issuer is away when the edge starts, comes, and has another key after a while. No loop waits for it.
func TestIssuerAway(t *testing.T) {
	is, next := newIssuer(t, "k1"), newIssuer(t, "k2")
	var set atomic.Pointer[[]byte]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if text := set.Load(); text != nil {
			_, _ = w.Write(*text)
			return
		}
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(server.Close)
	e := start(t, Config{
		Membership: members(listenBackend(t, echo("b0"))), Routes: []Route{{Key: "jwt:sub"}}, Auth: Auth{JWKS: server.URL, Audience: "chat"},
	})
	e.send(upgradeTo("/ws", "Authorization: Bearer "+is.token("alice", anHour))).refused(http.StatusServiceUnavailable)

	publish := func(i *issuer) { text := i.set(); set.Store(&text) }
	comesIn := func(i *issuer, user string) {
		t.Helper()
		for deadline := time.Now().Add(patience); ; {
			c := e.send(upgradeTo("/ws", "Authorization: Bearer "+i.token(user, anHour)))
			if c.head().StatusCode == http.StatusSwitchingProtocols && c.line() == "b0/"+user {
				return
			}
			if _ = c.Close(); time.Now().After(deadline) {
				t.Fatalf("%s does not come in by %s", user, i.kid)
			}
		}
	}
	publish(is)
	comesIn(is, "alice")
	// Another issuer's keys take the place of these by a reload; what they had verified is forgotten.
	cfg := e.cfg
	cfg.Auth.JWKS = next.file()
	if err := e.Reload(cfg); err != nil {
		t.Fatal(err)
	}
	comesIn(next, "bob")
	e.send(upgradeTo("/ws", "Authorization: Bearer "+is.token("alice", anHour))).refused(http.StatusUnauthorized)
	cfg.Auth.JWKS = "nowhere"
	if err := e.Reload(cfg); err == nil || !strings.Contains(err.Error(), "auth: jwks") {
		t.Errorf("%v", err)
	}
	comesIn(next, "carol")
}
