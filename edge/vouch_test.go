package edge

import (
	"bufio"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/identity"
)

// secretFile holds secrets, each of one digit.
func secretFile(t testing.TB, digits ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secrets")
	writeSecrets(t, path, digits...)
	return path
}

func writeSecrets(t testing.TB, path string, digits ...string) {
	t.Helper()
	var text strings.Builder
	for _, d := range digits {
		text.WriteString(strings.Repeat(d, 64) + "\n")
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

func guardOf(t testing.TB, path, service, member string) *identity.Guard {
	t.Helper()
	secrets, err := identity.ReadSecrets(path)
	if err != nil {
		t.Fatal(err)
	}
	return identity.NewGuard(secrets, service, member)
}

// guarded is a backend that says what its guard thinks of each request, and then refuses it.
func guarded(guard *identity.Guard) backendFunc {
	return func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		verdict := "unsigned"
		if h := r.Header; len(h["X-Selvedge-Signature"]) == 1 {
			verdict = "good"
			claims := identity.Claims{RequestID: h.Get("X-Request-Id"), User: h.Get("X-Selvedge-User"), Expires: h.Get("X-Selvedge-Expires")}
			if err := guard.Signature(h.Get("X-Selvedge-Signature"), claims, time.Now()); err != nil {
				verdict = err.Error()
			}
		}
		say(conn, "HTTP/1.1 403 Forbidden\r\nX-Verdict: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", verdict)
	}
}

// Every request is signed for the member that gets it, whoever was asked before, with or without a user; what a client says
// itself is gone.
func TestRequestsAreSigned(t *testing.T) {
	path := secretFile(t, "1")
	backend := listenBackend(t, guarded(guardOf(t, path, "default", "b1")))
	e := start(t, Config{
		Membership: members(deadAddr(t), backend), Routes: []Route{{Key: "query:user,none"}},
		Services: map[string]ServiceConfig{DefaultService: {EdgeSecretFile: path}},
	})
	smuggled := "X-Selvedge-Signature: v1.00000000.0.AAAA"
	plain := func(target string) string {
		return "GET " + target + " HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\nX_Selvedge_Signature: x\r\n" + smuggled + "\r\n\r\n"
	}
	for _, user := range []string{e.ownedBy("b0"), e.ownedBy("b1"), "j%C3%B6rg", ""} {
		target := "/ws"
		if user != "" {
			target += "?user=" + user
		}
		for _, request := range []string{upgradeTo(target, smuggled), plain(target)} {
			if got := e.send(request).head().Header.Get("X-Verdict"); got != "good" {
				t.Errorf("%.20q... of user %q: %s", request, user, got)
			}
		}
	}

	// A new key, and a new configuration, without a restart; a file that is broken leaves the old one.
	writeSecrets(t, path, "2", "1")
	next := e.cfg
	if err := e.Reload(next); err != nil {
		t.Fatal(err)
	}
	if got := e.send(plain("/")).head().Header.Get("X-Verdict"); got != identity.ErrUnknownKey.Error() {
		t.Errorf("after the rotation: %s; the backend knows the old key alone", got)
	}
	if err := os.WriteFile(path, []byte("password"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.Reload(next); err == nil || !strings.Contains(err.Error(), "services.default.edge_secret_file") {
		t.Errorf("a broken file: %v", err)
	}
	next.Services = nil
	if err := e.Reload(next); err != nil {
		t.Fatal(err)
	}
	if got := e.send(plain("/")).head().Header.Get("X-Verdict"); got != "unsigned" {
		t.Errorf("without a file: %s", got)
	}
}

// One service's signature is worth nothing at another, even where they share the secret.
func TestSignatureIsForOneService(t *testing.T) {
	path := secretFile(t, "1")
	e := start(t, Config{
		Membership: members(listenBackend(t, guarded(guardOf(t, path, "game", "b0")))),
		Services:   map[string]ServiceConfig{DefaultService: {EdgeSecretFile: path}},
	})
	if got := e.send(upgradeTo("/ws?user=a")).head().Header.Get("X-Verdict"); got != identity.ErrForged.Error() {
		t.Errorf("%s", got)
	}
	if _, err := New(Config{Membership: members(), Services: map[string]ServiceConfig{DefaultService: {EdgeSecretFile: "/none"}}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
}
