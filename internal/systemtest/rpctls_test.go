package systemtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/redis/go-redis/v9"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/rpc"
	"github.com/selvedge/selvedge/internal/testkit"
)

// secured is a cluster whose members speak mutual TLS on their RPC ports, and have no tokens, though all the world could reach those.
type secured struct {
	*cluster
	members, clients *testkit.Authority
	outsider         sender.TLS // a caller's, with a certificate of its own
	config           string
}

func newSecured(t *testing.T) *secured {
	s := &secured{
		cluster: &cluster{t: t, consul: testkit.StartConsul(t), backends: make(map[string]*member)},
		members: testkit.NewAuthority(t, "members"), clients: testkit.NewAuthority(t, "clients"), config: t.TempDir(),
	}
	cert, key := s.clients.Issue("billing")
	s.outsider = sender.TLS{CA: s.members.File, Cert: cert, Key: key}
	for _, id := range []string{"b1", "b2"} {
		cert, key := s.members.Issue(id, "127.0.0.1")
		s.addBackend(id, "--config", s.write(id, fmt.Sprintf("backend: {listen: \"127.0.0.1:0\", rpc: {tls: {cert: %q, key: %q, client_ca: %q, ca: %q}}}", cert, key, s.clients.File, s.members.File)),
			"--rpc", "0.0.0.0:0", "--advertise", "127.0.0.1")
	}
	for _, b := range s.backends {
		b.rpc = strings.Replace(b.rpc, "[::]", "127.0.0.1", 1)
		b.rpc = strings.Replace(b.rpc, "0.0.0.0", "127.0.0.1", 1)
	}
	s.addEdge("edge", "--consul", s.consul.Addr, "--config", s.write("edge",
		fmt.Sprintf("services: {default: {rpc_tls: {ca: %q, cert: %q, key: %q}}}", s.members.File, cert, key)))
	testkit.Eventually(t, 20*time.Second, func() error { // else sessions would be misplaced, and move
		for _, reach := range [][]string{{"--via", s.edges[0].admin}, s.via("b1"), s.via("b2")} {
			out, errs, code := run(t, "", append([]string{"ring", "show", "--output", "json"}, reach...)...)
			var r ring
			if code == 0 {
				unmarshal(t, out, &r)
			}
			if r.size() != 2 {
				return fmt.Errorf("%d: %s%s", code, out, errs)
			}
		}
		return nil
	}, "a ring of two")
	return s
}

func (s *secured) write(name, text string) string {
	path := filepath.Join(s.config, name+".yaml")
	writeFile(s.t, path, text)
	return path
}

// flags are those of a command that calls members.
func (s *secured) flags() []string {
	return []string{"--tls-ca", s.outsider.CA, "--tls-cert", s.outsider.Cert, "--tls-key", s.outsider.Key}
}

// via reaches a member.
func (s *secured) via(id string) []string {
	return append([]string{"--via", s.backends[id].rpc}, s.flags()...)
}

// curl posts JSON to a member's RPC port.
func (s *secured) curl(m *member, method, body string, args ...string) (string, error) {
	out, err := exec.CommandContext(s.t.Context(), "curl", append([]string{
		"-sS", "--max-time", "10", "--cacert", s.members.File, "-H", "Content-Type: application/json", "-d", body, "https://" + m.rpc + method,
	}, args...)...).CombinedOutput()
	return string(out), err
}

const pushMethod = "/selvedge.push.v1.PushService/Push"

// Members, senders, the edge's push port, commands and curl reach an RPC port that speaks mutual TLS; without a certificate nobody does, by any
// protocol.
func TestRPCByMutualTLS(t *testing.T) {
	s := newSecured(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	users := userNames(6)
	var clients []io.ReadWriter
	for _, user := range users {
		conn, ahead, _, err := ws.Dial(ctx, "ws://"+s.edges[0].addr+"/ws?user="+user)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(time.Minute))
		client := struct {
			io.Reader
			io.Writer
		}{conn, conn}
		if ahead != nil {
			client.Reader = ahead
		}
		clients = append(clients, client)
	}
	everybody := func(text string) {
		t.Helper()
		for i, c := range clients {
			if got, err := wsutil.ReadServerText(c); err != nil || string(got) != text {
				t.Fatalf("%s got %q, %v; want %q", users[i], got, err, text)
			}
		}
	}
	shown := []string{"--cert", s.outsider.Cert, "--key", s.outsider.Key}

	t.Run("sender", func(t *testing.T) {
		pusher, err := sender.New(sender.Config{Membership: sender.Membership{Consul: &sender.Consul{Addr: s.consul.Addr}}, TLS: &s.outsider})
		if err != nil {
			t.Fatal(err)
		}
		defer pusher.Close()
		for _, user := range users { // by Pipeline
			if r, err := pusher.Push(ctx, user, sender.Text("piped")); r.Sessions != 1 || err != nil {
				t.Errorf("%+v, %v", r, err)
			}
		}
		everybody("piped")
		results, err := pusher.PushMany(ctx, users, sender.Text("to many"))
		for _, r := range results {
			if r.Sessions != 1 || r.Err != nil {
				t.Errorf("%+v", r)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		everybody("to many")
	})
	t.Run("curl, and from member to member", func(t *testing.T) {
		for _, b := range s.backends {
			for _, user := range users { // half of them live at the other one
				out, err := s.curl(b, pushMethod, fmt.Sprintf(`{"user":%q,"text":"curled by %s"}`, user, b.id), shown...)
				var answer struct{ Outcome string }
				if jsonErr := json.Unmarshal([]byte(out), &answer); err != nil || jsonErr != nil || answer.Outcome != "DELIVERED" {
					t.Errorf("%s to %s: %s, %v", b.id, user, out, err)
				}
			}
			everybody("curled by " + b.id)
		}
	})
	t.Run("PushStream", func(t *testing.T) {
		secure, err := rpc.Credentials(s.outsider).Follow()
		if err != nil {
			t.Fatal(err)
		}
		client, closeAll := rpc.Client("", secure)
		defer closeAll()
		stream := pushv1.NewPushServiceClient(client, "https://"+s.backends["b1"].rpc, connect.WithGRPC()).PushStream(ctx)
		for _, user := range users {
			if err := stream.Send(&pushv1.PushRequest{User: user, Payload: &pushv1.PushRequest_Text{Text: "streamed"}}); err != nil {
				t.Fatal(err)
			}
			if r, err := stream.Receive(); err != nil || r.Outcome != pushv1.Outcome_DELIVERED {
				t.Fatalf("%v, %v", r, err)
			}
		}
		_, _ = stream.CloseRequest(), stream.CloseResponse()
		everybody("streamed")
	})
	t.Run("edge and commands", func(t *testing.T) {
		for name, reach := range map[string][]string{
			"edge":   {"--via", s.edges[0].admin},
			"member": s.via("b2"),
			"consul": append([]string{"--consul", s.consul.Addr}, s.flags()...),
		} {
			results, code := runJSON[pushed](t, append([]string{"push", "--to", strings.Join(users, ","), "--text", "by " + name}, reach...)...)
			for _, r := range results {
				if r.Sessions != 1 {
					t.Errorf("by %s: %+v", name, r)
				}
			}
			if code != 0 {
				t.Errorf("by %s: exit code %d", name, code)
			}
			everybody("by " + name)
		}
	})
	t.Run("bridge", func(t *testing.T) {
		url := testkit.StartRedis(t).URL
		options, err := redis.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(options)
		defer client.Close()
		bridge := startBridge(t, "bridge", "bridge", "--redis", url, "--channel", "chat", "--payload", "json:text", "--admin", "127.0.0.1:0",
			"--consul", s.consul.Addr, "--config", filepath.Join(s.config, "edge.yaml"))
		for _, user := range users {
			if n, err := client.Publish(ctx, "chat", fmt.Sprintf(`{"user":%q,"text":"bridged"}`, user)).Result(); n != 1 || err != nil {
				t.Fatalf("%d listen, %v", n, err)
			}
		}
		everybody("bridged")
		bridge.drain()
	})
	t.Run("doctor", func(t *testing.T) {
		for _, as := range []string{"edge", "b1"} { // who calls the members, and one of them
			found, _ := examine(t, "--consul", s.consul.Addr, "--edge", s.edges[0].admin, "--config", filepath.Join(s.config, as+".yaml"))
			if !slices.ContainsFunc(found, func(d diagnosis) bool {
				return d.Check == "ring" && d.Level == "good" && strings.Contains(d.Finding, "3 processes decide")
			}) {
				t.Errorf("as %s: %+v", as, found)
			}
		}
	})
	t.Run("without a certificate", func(t *testing.T) {
		b := s.backends["b1"]
		if out, err := s.curl(b, pushMethod, `{"user":"user-0","text":"refused"}`); err == nil {
			t.Errorf("curl: %s", out)
		}
		stranger := testkit.NewAuthority(t, "strangers")
		cert, key := stranger.Issue("stranger")
		if out, err := s.curl(b, pushMethod, `{"user":"user-0","text":"refused"}`, "--cert", cert, "--key", key); err == nil {
			t.Errorf("curl with a stranger's: %s", out)
		}
		secure, err := rpc.Credentials{CA: s.members.File}.Follow()
		if err != nil {
			t.Fatal(err)
		}
		client, closeAll := rpc.Client("", secure)
		defer closeAll()
		service := pushv1.NewPushServiceClient(client, "https://"+b.rpc, connect.WithGRPC())
		push := &pushv1.PushRequest{User: "user-0", Payload: &pushv1.PushRequest_Text{Text: "refused"}}
		if _, err := service.Push(ctx, connect.NewRequest(push)); err == nil {
			t.Error("Push was answered")
		}
		stream := service.PushStream(ctx)
		_ = stream.Send(push)
		if _, err := stream.Receive(); err == nil {
			t.Error("PushStream was answered")
		}
		pipeline := service.Pipeline(ctx)
		_ = pipeline.Send(&pushv1.PushCalls{Calls: []*pushv1.PushCall{{Call: 1, Push: push}}})
		if _, err := pipeline.Receive(); err == nil {
			t.Error("Pipeline was answered")
		}
		if _, stderr, code := run(t, "", "push", "--to", "user-0", "--text", "refused", "--consul", s.consul.Addr, "--tls-ca", s.members.File, "--timeout", "2s"); code != 1 {
			t.Errorf("exit code %d: %s", code, stderr)
		}
		if out, err := exec.Command("curl", "-sS", "--max-time", "10", "http://"+b.rpc+pushMethod).CombinedOutput(); err != nil || !strings.Contains(string(out), "HTTPS server") {
			t.Errorf("without TLS: %s, %v", out, err)
		}
	})
	t.Run("a sender is no member", func(t *testing.T) {
		const talk = "/selvedge.peer.v1.PeerService/Talk"
		b := s.backends["b1"]
		code := func(cert, key string) string {
			out, err := s.curl(b, talk, "{}", "--cert", cert, "--key", key, "--http1.1", "-o", "/dev/null", "-w", "%{http_code}")
			if err != nil {
				t.Fatal(out, err)
			}
			return out
		}
		if got := code(s.outsider.Cert, s.outsider.Key); got != "401" {
			t.Errorf("a sender's certificate: %s, want 401", got)
		}
		if got := code(s.members.Issue("b3", "127.0.0.1")); got != "505" { // it comes to the service, which wants HTTP/2
			t.Errorf("a member's certificate: %s, want 505", got)
		}
	})
	t.Run("renewed", func(t *testing.T) {
		b := s.backends["b1"]
		serial := func() (*big.Int, error) {
			pair, err := tls.LoadX509KeyPair(s.outsider.Cert, s.outsider.Key)
			if err != nil {
				return nil, err
			}
			conn, err := tls.Dial("tcp", b.rpc, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}}) //nolint:gosec // to see what it shows
			if err != nil {
				return nil, err
			}
			defer conn.Close()
			return conn.ConnectionState().PeerCertificates[0].SerialNumber, nil
		}
		before, err := serial()
		if err != nil {
			t.Fatal(err)
		}
		s.members.Issue("b1", "127.0.0.1") // over the old one
		testkit.Eventually(t, 20*time.Second, func() error {
			now, err := serial()
			if err == nil && now.Cmp(before) == 0 {
				err = errors.New("it shows the old one")
			}
			return err
		}, "the new certificate to be shown")
		for _, user := range users {
			out, err := s.curl(b, pushMethod, fmt.Sprintf(`{"user":%q,"text":"after"}`, user), shown...)
			if err != nil || !strings.Contains(out, "DELIVERED") {
				t.Errorf("%s: %s, %v", user, out, err)
			}
		}
		everybody("after")
	})
	http.DefaultClient.CloseIdleConnections()
}
