package edge

import (
	"bufio"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Rules change what the backend sees, in any spelling, and what the client sees: of plain answers, 101s and refusals of upgrades.
func TestFieldRules(t *testing.T) {
	route := Route{
		RequestFields:  FieldRules{Set: map[string]string{"X-Env": "prod", "x-forwarded-proto": "https"}, Remove: []string{"Cookie", "X-Internal"}},
		ResponseFields: FieldRules{Set: map[string]string{"strict-transport-security": "max-age=1", "Server": "us"}, Remove: []string{"X-Powered-By"}},
	}
	heads := make(chan http.Header, 1)
	backend := listenBackend(t, func(conn net.Conn, _ *bufio.Reader, r *http.Request) {
		heads <- r.Header
		const fields = "X-Powered-By: PHP\r\nServer: a\r\nServer: b\r\nX-Kept: 1\r\n"
		switch {
		case r.URL.Path == "/refused":
			say(conn, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n%s\r\n", fields)
		case wantsWebSocket(r):
			say(conn, "%s", switched(r, fields))
		default:
			say(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n%s\r\n", fields)
		}
	})
	e := start(t, Config{Membership: members(backend), Routes: []Route{route}})
	fields := []string{"Cookie: a=b", "X_Internal: 1", "x-internal: 1", "X-Env: mallory", "X_Env: mallory", "X-Kept: 1"}
	for name, request := range map[string]string{
		"plain": get("/?user=a", fields...), "upgrade": upgradeTo("/?user=a", fields...), "refused upgrade": upgradeTo("/refused?user=a", fields...),
	} {
		answer := e.send(request).head()
		seen := <-heads
		for field, want := range map[string]string{
			"X-Env": "prod", "X_env": "", "Cookie": "", "X-Internal": "", "X_internal": "", "X-Kept": "1", "X-Forwarded-Proto": "https",
		} {
			if got := strings.Join(seen[field], "|"); got != want {
				t.Errorf("%s: the backend saw %s %q, want %q", name, field, got, want)
			}
		}
		for field, want := range map[string]string{"X-Powered-By": "", "Server": "us", "Strict-Transport-Security": "max-age=1", "X-Kept": "1"} {
			if got := strings.Join(answer.Header[field], "|"); got != want {
				t.Errorf("%s: the client saw %s %q, want %q", name, field, got, want)
			}
		}
	}
}

func TestFieldRulesAreChecked(t *testing.T) {
	for name, c := range map[string]struct {
		rules FieldRules
		want  string
	}{
		"ours":             {FieldRules{Set: map[string]string{"X_Selvedge-User": "root"}}, "the edge's own word"},
		"ours, removed":    {FieldRules{Remove: []string{"X-Selvedge-Signature"}}, "the edge's own word"},
		"hop by hop":       {FieldRules{Set: map[string]string{"connection": "close"}}, "belongs to one connection"},
		"transfer coding":  {FieldRules{Remove: []string{"Transfer-Encoding"}}, "belongs to one connection"},
		"handshake":        {FieldRules{Set: map[string]string{"Sec-WebSocket-Protocol": "x"}}, "belongs to the handshake"},
		"host":             {FieldRules{Set: map[string]string{"Host": "x"}}, "passes as the client sent it"},
		"length":           {FieldRules{Remove: []string{"Content-Length"}}, "how the body comes"},
		"no name":          {FieldRules{Remove: []string{"a b"}}, "cannot be the name"},
		"splits":           {FieldRules{Set: map[string]string{"A": "1\r\nB: 2"}}, "cannot stand in a field"},
		"empty":            {FieldRules{Set: map[string]string{"A": ""}}, "list it under remove"},
		"set and removed":  {FieldRules{Set: map[string]string{"X-A": "1"}, Remove: []string{"x_a"}}, "the same field"},
		"set in two cases": {FieldRules{Set: map[string]string{"X-A": "1", "x-a": "2"}}, "the same field"},
	} {
		for _, route := range []Route{{RequestFields: c.rules}, {ResponseFields: c.rules}} {
			if _, err := New(Config{Membership: members("127.0.0.1:1"), Routes: []Route{route}}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want %q", name, err, c.want)
			}
		}
	}
}
