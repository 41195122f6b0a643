package systemtest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/identity"
	"github.com/selvedge/selvedge/internal/testkit"
)

// dispatcher asks edges where to connect, and remembers what they named.
type dispatcher struct {
	mu    sync.Mutex
	named map[string][]string // backends, by target
}

type dispatched struct{ URL, Backend, Error string }

// resolve asks an edge for a target such as /ws?user=alice.
func resolve(ctx context.Context, edge, target string) (d dispatched, err error) {
	path, query, _ := strings.Cut(target, "?")
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+edge+"/.well-known/selvedge/resolve?path="+url.QueryEscape(path)+"&"+query, nil)
	if err != nil {
		return d, err
	}
	request.Close = true
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return d, err
	}
	defer answer.Body.Close()
	if err = json.NewDecoder(answer.Body).Decode(&d); err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, d.Error)
	}
	return d, err
}

func (d *dispatcher) by(ctx context.Context, edge, target string) (string, error) {
	answer, err := resolve(ctx, edge, target)
	if err == nil {
		d.mu.Lock()
		d.named[target] = append(d.named[target], answer.Backend)
		d.mu.Unlock()
	}
	return answer.URL, err
}

// newDispatchingCluster has backends with URLs of their own, and an edge that names them. Its secret is in a file; more goes to the end of the
// configuration, which all read.
func newDispatchingCluster(t *testing.T, backends int, more string) (c *cluster, secret string) {
	t.Helper()
	secret = filepath.Join(t.TempDir(), "secret")
	config := filepath.Join(t.TempDir(), "selvedge.yaml")
	writeFile(t, secret, strings.Repeat("5e", 32))
	writeFile(t, config, fmt.Sprintf("backend: {edge_secret_file: %q}\nservices: {default: {edge_secret_file: %q}}\n%s", secret, secret, more))
	c = &cluster{t: t, consul: testkit.StartConsul(t), backends: make(map[string]*member)}
	for i := range backends {
		addr := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
		c.addBackend(fmt.Sprintf("b%d", i+1), "--config", config, "--listen", addr, "--public-url", "ws://"+addr, "--drain-timeout", "5s")
	}
	c.addEdge("edge", "--config", config, "--consul", c.consul.Addr)
	c.awaitRing(backends)
	return c, secret
}

// Users with one device through the edge and one that is connected to its backend by itself: both get each push, once; a backend that
// is killed is no trap; one that drains moves both. Edges sign, and tickets open what they are for.
func TestDispatch(t *testing.T) {
	c, secret := newDispatchingCluster(t, 3, "")
	edge := c.edges[0]

	users := userNames(30)
	sent := &dispatcher{named: make(map[string][]string)}
	var devices, direct []*device
	for _, user := range users {
		for _, by := range []func(context.Context, string, string) (string, error){nil, sent.by} {
			d := &device{user: user, received: make(map[string]int), opts: deviceOptions{edges: []string{edge.addr}, by: by}}
			d.url = "/ws?hello=1&user=" + user
			if devices = append(devices, d); by != nil {
				d.url += "&device=direct"
				direct = append(direct, d)
			}
		}
	}
	crowd := bringOnline(t, devices)
	owner := c.owners(users)
	for _, d := range devices {
		if d.held() != owner[d.user] {
			t.Errorf("%s is at %s, owner %s", d.url, d.held(), owner[d.user])
		}
	}
	both := func(text string) {
		t.Helper()
		for _, r := range c.push(users, text) {
			if r.Outcome != "DELIVERED" || r.Sessions != 2 {
				t.Errorf("%s: %+v", text, r)
			}
		}
		crowd.wantOnce(text)
	}
	both("at first")

	tickets(t, c, secret, users[:2], owner[users[0]])

	killed := time.Now()
	c.backends["b1"].kill()
	delete(c.backends, "b1")
	crowd.await("everybody to be back", 10*time.Second, func(d *device) bool { return d.held() != "b1" && d.held() != "" })
	var slowest time.Duration
	moved := 0
	for _, d := range direct {
		if owner[d.user] != "b1" {
			continue
		}
		moved++
		d.mu.Lock()
		slowest = max(slowest, d.conns[len(d.conns)-1].opened.Sub(killed))
		d.mu.Unlock()
		sent.mu.Lock()
		if named := strings.Join(sent.named[d.url], " "); strings.Contains(named, "b1 b1 b1") { // to begin with, and once more if it was not quite dead
			t.Errorf("%s was sent to %s", d.url, named)
		}
		sent.mu.Unlock()
	}
	t.Logf("the slowest of %d direct clients was back %v after the kill", moved, slowest.Round(time.Millisecond))
	if moved == 0 {
		t.Error("b1 owned nobody: this shows nothing")
	}
	c.awaitRing(2)
	both("after the kill")

	c.backends["b2"].signal(syscall.SIGTERM)
	crowd.await("everybody to be at b3", 30*time.Second, func(d *device) bool { return d.held() == "b3" })
	for _, d := range devices {
		for _, end := range d.ends() {
			if end.from == "b2" && end.code != 1012 {
				t.Errorf("%s: %+v; a drain closes with 1012", d.url, end)
			}
		}
	}
	both("after the drain")
}

// tickets shows what real processes make of tickets that are no good, each in words of its own, and of good ones while the secret is changed.
// The first user's owner is at; the second is somebody else.
func tickets(t *testing.T, c *cluster, secret string, users []string, at string) {
	t.Helper()
	edge := c.edges[0]
	ask := func(addr, target string, fields ...string) (status int, reason, to string) {
		t.Helper()
		conn, err := net.DialTimeout("tcp", addr, 5*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: chat\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", target, strings.Join(append(fields, ""), "\r\n"))
		answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		var says struct{ Reason string }
		if answer.StatusCode != http.StatusSwitchingProtocols {
			_ = json.NewDecoder(answer.Body).Decode(&says) // what is no JSON has no reason
		}
		return answer.StatusCode, says.Reason, answer.Header.Get("Location")
	}
	other := map[string]string{"b1": "b2", "b2": "b3", "b3": "b1"}[at]
	plain := "/echo?user=" + users[0]
	fresh := func() string {
		t.Helper()
		d, err := resolve(t.Context(), edge.addr, plain)
		if err != nil || d.Backend != at {
			t.Fatalf("%+v, %v", d, err)
		}
		return strings.TrimPrefix(d.URL, "ws://"+c.backends[at].addr)
	}
	secrets := func(lines ...string) *identity.Secrets {
		t.Helper()
		path := filepath.Join(t.TempDir(), "secret")
		writeFile(t, path, strings.Join(lines, "\n"))
		s, err := identity.ReadSecrets(path)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	text, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	oldLine, newLine := string(text), strings.Repeat("7a", 32)
	oldSecret, newSecret := secrets(oldLine), secrets(newLine)
	minted := func(by *identity.Secrets, life time.Duration) string {
		return plain + "&selvedge_ticket=" + by.Mint("default", &identity.Ticket{User: users[0], Backend: at, Target: plain,
			Expires: time.Now().Add(life), Origin: "http://" + edge.addr})
	}

	used := fresh()
	mac := strings.Index(used, "_ticket=") + 20
	forged := used[:mac] + strings.Repeat("A", 20) + used[mac+20:]
	answers := make(map[string]string)
	for _, test := range []struct {
		name, addr, target, field string
		status                    int
		reason                    string
	}{
		{"good", c.backends[at].addr, used, "", 101, ""},
		{"replayed", c.backends[at].addr, used, "", 401, "ticket_replayed"},
		{"forged", c.backends[at].addr, forged, "", 401, "ticket_forged"},
		{"expired", c.backends[at].addr, minted(oldSecret, 0), "", 401, "ticket_expired"},
		{"for another user", c.backends[at].addr, fresh(), "X-Selvedge-User: " + users[1], 403, "ticket_other_user"},
		{"for another user's URL", c.backends[at].addr, strings.Replace(fresh(), users[0], users[1], 1), "", 403, "ticket_other_url"},
		{"another backend's", c.backends[other].addr, fresh(), "", 421, "ticket_other_backend"},
		{"of a secret not shared", c.backends[at].addr, minted(newSecret, identity.TicketLife), "", 401, "ticket_unknown_key"},
		{"nonsense", c.backends[at].addr, plain + "&selvedge_ticket=x", "", 401, "ticket_malformed"},
		{"none", c.backends[at].addr, plain, "", 401, "unsigned"},
	} {
		var fields []string
		if test.field != "" {
			fields = []string{test.field}
		}
		status, reason, to := ask(test.addr, test.target, fields...)
		wantTo := ""
		if test.status == http.StatusMisdirectedRequest {
			wantTo = "http://" + edge.addr + "/.well-known/selvedge/resolve?path=%2Fecho&user=" + users[0]
		}
		if status != test.status || test.reason != "" && reason != test.reason || to != wantTo {
			t.Errorf("%s: %d %s, sent to %q; want %d %s, %q", test.name, status, reason, to, test.status, test.reason, wantTo)
		}
		if before := answers[reason]; before != "" {
			t.Errorf("%s: is answered as %s is", test.name, before)
		}
		answers[reason] = test.name
	}

	// The secret is changed while the edge's tickets are used all the time: the new one is known to all, then the first, then alone.
	takes := func(by *identity.Secrets, status int, reason string) func() error {
		return func() error {
			if status, reason, _ := ask(c.backends[at].addr, fresh()); status != http.StatusSwitchingProtocols {
				t.Fatalf("the edge's ticket is refused: %d %s", status, reason)
			}
			if got, why, _ := ask(c.backends[at].addr, minted(by, identity.TicketLife)); got != status || why != reason {
				return fmt.Errorf("%d %s", got, why)
			}
			return nil
		}
	}
	change := func(lines ...string) { writeFile(t, secret, strings.Join(lines, "\n")) }
	change(oldLine, newLine)
	testkit.Eventually(t, 20*time.Second, takes(newSecret, 101, ""), "backends to take tickets by the new secret")
	if err := takes(oldSecret, 101, "")(); err != nil {
		t.Errorf("with two secrets, a ticket by the old one: %v", err)
	}
	change(newLine, oldLine)
	testkit.Eventually(t, 20*time.Second, func() error {
		_, ticket, _ := identity.CutTicket(fresh())
		_, err := identity.NewGuard(newSecret, "default", at).Ticket(ticket, plain, time.Now())
		return err
	}, "the edge to give tickets by the new secret")
	change(newLine)
	testkit.Eventually(t, 20*time.Second, takes(oldSecret, 401, "ticket_unknown_key"), "backends to refuse tickets by the old secret")
}
