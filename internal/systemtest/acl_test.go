package systemtest

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

// guarded is a Consul that denies what no policy allows, and the folder of token files.
type guarded struct {
	*testkit.Consul
	t   *testing.T
	dir string
}

// policy is a rule file of deploy/consul, rule by rule.
func policy(t *testing.T, role string) (rules []string) {
	t.Helper()
	text, err := os.ReadFile("../../deploy/consul/" + role + ".policy.hcl")
	if err != nil {
		t.Fatal(err)
	}
	rules = regexp.MustCompile(`(?m)^\w+ "[^"]*" \{\n(?:.*\n)*?\}\n`).FindAllString(string(text), -1)
	if len(rules) == 0 {
		t.Fatalf("the policy of %s has no rules:\n%s", role, text)
	}
	return rules
}

// token writes a file with a token that has the rules and no others.
func (g *guarded) token(rules ...string) (file string) {
	g.t.Helper()
	acl := g.Client().ACL()
	p, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: rand.Text(), Rules: strings.Join(rules, "")}, nil)
	if err != nil {
		g.t.Fatalf("Consul does not take the policy: %v\n%s", err, strings.Join(rules, ""))
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: p.ID}}}, nil)
	if err != nil {
		g.t.Fatal(err)
	}
	file = filepath.Join(g.dir, p.Name)
	writeFile(g.t, file, token.SecretID)
	return file
}

// edge and backend run one with a token.
func (g *guarded) edge(token string) *process {
	config := filepath.Join(g.dir, "edge.yaml")
	writeFile(g.t, config, fmt.Sprintf("consul: {addr: %s, token_file: %s, stale: true}\nroutes: [{service: chat}]\n", g.Addr, token))
	return start(g.t, "edge", "edge", "--config", config, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
}

func (g *guarded) backend(id, token string) *process {
	config := filepath.Join(g.dir, id+".yaml")
	writeFile(g.t, config, fmt.Sprintf("consul: {addr: %s, token_file: %s, stale: true}\nbackend: {id: %s, service: chat}\n", g.Addr, token, id))
	return start(g.t, id, "backend", "--config", config, "--listen", "127.0.0.1:0", "--rpc", "127.0.0.1:0")
}

// push sends one with the command, as a sender that has token.
func (g *guarded) push(token, user string) (stdout, stderr string, code int) {
	g.t.Setenv("CONSUL_HTTP_TOKEN_FILE", token)
	return run(g.t, "", "push", "--to", user, "--text", "hi", "--consul", g.Addr, "--service", "chat", "--timeout", "3s")
}

// TestConsulPolicies runs edge, backends and sender with a Consul that denies everything but what the policies of deploy/consul allow; and
// with each of their rules taken away: then the error names it.
func TestConsulPolicies(t *testing.T) {
	g := &guarded{testkit.StartConsulWithACLs(t), t, t.TempDir()}
	rules := map[string][]string{"edge": policy(t, "edge"), "backend": policy(t, "backend"), "sender": policy(t, "sender")}

	whole := make(map[string]string)
	for role, r := range rules {
		whole[role] = g.token(r...)
	}
	for _, id := range []string{"b1", "b2"} {
		g.backend(id, whole["backend"]).waitLog("serving")
	}
	edge := g.edge(whole["edge"])
	entry := edge.waitLog("edge is listening")
	door := &frontDoor{edge, entry["addr"].(string), entry["admin"].(string)}
	door.awaitReady()
	users := userNames(20)
	devices := online(t, users, 1, door)
	for _, user := range users {
		if stdout, stderr, code := g.push(whole["sender"], user); code != 0 || !strings.Contains(stdout, "delivered to 1 session") {
			t.Fatalf("push to %s: exit code %d, %s%s", user, code, stdout, stderr)
		}
	}
	devices.wantOnce("hi")

	for role, all := range rules {
		for _, less := range lessened(t, all) {
			t.Run(role+" without "+less.right, func(t *testing.T) {
				g := &guarded{g.Consul, t, t.TempDir()}
				token := g.token(less.rules...)
				switch role {
				case "edge":
					g.edge(token).waitLine("error that says "+less.error.String(), less.error.MatchString)
				case "backend":
					g.backend("b3", token).waitLine("error that says "+less.error.String(), less.error.MatchString)
				case "sender":
					stdout, stderr, code := g.push(token, users[0])
					if code != 1 || !less.error.MatchString(stderr) {
						t.Errorf("exit code %d, %s%s; want an error that says %v", code, stdout, stderr, less.error)
					}
				}
			})
		}
	}
}

// lesser are the rules of a policy with one right taken away, and what an error must say then.
type lesser struct {
	right string
	rules []string
	error *regexp.Regexp
}

var rule = regexp.MustCompile(`^(service|node)(?:_prefix)? "(\w*)" \{\s*policy = "(read|write)"\s*\}\s*$`)

// lessened takes each right away in turn. Who may write may read: there are two to take.
func lessened(t *testing.T, rules []string) (all []lesser) {
	t.Helper()
	for i, r := range rules {
		m := rule.FindStringSubmatch(r)
		if m == nil {
			t.Fatalf("this test does not know what the rule gives:\n%s", r)
		}
		others := slices.Delete(slices.Clone(rules), i, i+1)
		says := func(right string) *regexp.Regexp {
			if m[2] != "" {
				right += `'? o[fn] \\+"` + m[2] // by Consul's words, or by ours where Consul just shows less
			}
			return regexp.MustCompile(right)
		}
		read, write := m[1]+":read", m[1]+":write"
		if m[3] == "write" {
			all = append(all, lesser{write, append(others[:len(others):len(others)], strings.Replace(r, "write", "read", 1)), says(write)})
		}
		all = append(all, lesser{read, others, says(read)})
	}
	return all
}

// TestConsulServices registers the services of deploy/consul as an agent does that may do just that: an edge routes to the member.
func TestConsulServices(t *testing.T) {
	g := &guarded{testkit.StartConsulWithACLs(t), t, t.TempDir()}
	token := g.token(policy(t, "services")...)
	backend := newOldBackend(t, "old-1")
	host, port, err := net.SplitHostPort(backend.addr)
	if err != nil {
		t.Fatal(err)
	}
	entry := g.edge(g.token(policy(t, "edge")...)).waitLog("edge is listening")
	here := strings.NewReplacer("10.0.0.9", host, "9000", port, "127.0.0.1:8081", entry["admin"].(string))
	consul, err := exec.LookPath("consul")
	if err != nil {
		consul = "../../bin/consul" // where the test server has been built
	}
	for _, name := range []string{"member", "edge"} {
		text, err := os.ReadFile("../../deploy/consul/" + name + ".service.hcl")
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(g.dir, name+".hcl")
		writeFile(t, file, here.Replace(string(text)))
		cmd := exec.Command(consul, "services", "register", "-http-addr", g.Addr, "-token-file", token, file)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("register %s: %v\n%s", name, err, out)
		}
	}
	testkit.Eventually(t, 20*time.Second, func() error {
		if status, _, body := ask(t, entry["addr"].(string), "/?user=a", ""); status != 200 {
			return fmt.Errorf("%d %s", status, body)
		}
		for _, service := range []string{"chat", "selvedge-edge"} {
			entries, _, err := g.Client().Health().Service(service, "", true, nil)
			if err != nil || len(entries) != 1 {
				return fmt.Errorf("%d instances of %s pass, %w", len(entries), service, err)
			}
		}
		return nil
	}, "both services to pass, and the edge to reach the member")
}
