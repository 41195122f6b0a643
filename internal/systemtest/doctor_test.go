package systemtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

// diagnosis is what `selvedge doctor` prints.
type diagnosis struct {
	Check, Level, Finding, Mend string
}

func examine(t *testing.T, args ...string) (found []diagnosis, code int) {
	t.Helper()
	return runJSON[diagnosis](t, append([]string{"doctor"}, args...)...)
}

// wantBad fails unless the check found something bad that says so, with its mend, and that is what the exit code tells.
func wantBad(t *testing.T, check, says string, found []diagnosis, code int) {
	t.Helper()
	if code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	for _, d := range found {
		if d.Check == check && d.Level == "bad" && strings.Contains(d.Finding, says) {
			if d.Mend == "" {
				t.Errorf("%q has no mend", d.Finding)
			}
			return
		}
	}
	t.Errorf("nothing bad of %s that says %q: %+v", check, says, found)
}

// A healthy cluster is found to be so, and what is done to it is found.
func TestDoctor(t *testing.T) {
	c := newCluster(t, 2, 2)
	edges := c.edges[0].admin + ",http://" + c.edges[1].admin
	healthy := func(when string) {
		t.Helper()
		found, code := examine(t, "--consul", c.consul.Addr, "--edge", edges)
		bad := 0
		for _, d := range found {
			if d.Level == "bad" {
				bad++
			}
			// What this machine's kernel allows is not the cluster's doing.
			ofHost := slices.Contains([]string{"descriptors", "ports", "somaxconn", "pipes"}, d.Check)
			if d.Level != "good" && d.Level != "skipped" && !ofHost {
				t.Errorf("%s: %+v", when, d)
			}
		}
		if (code == 0) != (bad == 0) {
			t.Errorf("%s: exit code %d with %d bad findings", when, code, bad)
		}
		for _, check := range []string{"consul", "rights", "members", "ring", "clock", "certificates", "descriptors"} {
			if !strings.Contains(fmt.Sprint(found), "{"+check+" good ") {
				t.Errorf("%s: nothing good of %s: %+v", when, check, found)
			}
		}
	}
	healthy("at first")

	secret := filepath.Join(t.TempDir(), "secret")
	writeFile(t, secret, "another ring's secret, of 16 bytes or more\n")
	config := filepath.Join(t.TempDir(), "backend.yaml")
	writeFile(t, config, "services: {default: {ring_secret_file: "+secret+"}}\n")
	t.Run("a member with another ring secret", func(t *testing.T) {
		other := c.addBackend("b3", "--config", config)
		defer func() { other.signal(syscall.SIGTERM); other.wait(20 * time.Second); delete(c.backends, "b3") }()
		testkit.Eventually(t, 20*time.Second, func() bool { r := c.ring(c.edges[0].admin); return r != nil && r.size() == 3 }, "b3 to be on the ring")
		found, code := examine(t, "--consul", c.consul.Addr, "--edge", edges)
		wantBad(t, "ring", "member b3", found, code)
	})
	t.Run("a secret of which only the doctor knows", func(t *testing.T) {
		found, code := examine(t, "--config", config, "--consul", c.consul.Addr, "--edge", edges)
		wantBad(t, "ring", "and the registry makes", found, code)
	})
	t.Run("an edge that is not there", func(t *testing.T) {
		found, code := examine(t, "--consul", c.consul.Addr, "--edge", c.consul.Addr+","+edges)
		wantBad(t, "ring", c.consul.Addr+" is no edge", found, code)
		found, code = examine(t, "--consul", c.consul.Addr, "--edge", "127.0.0.1:1")
		wantBad(t, "ring", "edge http://127.0.0.1:1 does not answer", found, code)
	})
	t.Run("a service without members", func(t *testing.T) {
		found, code := examine(t, "--consul", c.consul.Addr, "--service", "chta")
		wantBad(t, "members", "service chta has no member", found, code)
	})
	t.Run("a member that hangs", func(t *testing.T) {
		b2 := c.backends["b2"]
		b2.signal(syscall.SIGSTOP)
		defer b2.signal(syscall.SIGCONT)
		found, code := examine(t, "--consul", c.consul.Addr, "--edge", edges)
		wantBad(t, "ring", "member b2 at "+b2.rpc+" does not answer", found, code)
	})
	t.Run("few descriptors", func(t *testing.T) {
		binary, err := binary()
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-c", "ulimit -n 300; exec "+binary+" doctor --consul "+c.consul.Addr).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "bad      descriptors") || !strings.Contains(string(out), "-> ulimit -n 65536") {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("a token that an edge wants", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "token")
		writeFile(t, file, "s3cret\n")
		strict := filepath.Join(t.TempDir(), "edge.yaml")
		writeFile(t, strict, "admin: {token_file: "+file+"}\n")
		edge := c.addEdge("strict", "--config", strict, "--consul", c.consul.Addr)
		defer func() { edge.kill(); c.edges = c.edges[:2] }()
		found, code := examine(t, "--consul", c.consul.Addr, "--edge", edge.admin)
		wantBad(t, "ring", "refuses the token", found, code)
		if found, _ := examine(t, "--consul", c.consul.Addr, "--edge", edge.admin, "--token-file", file); !strings.Contains(fmt.Sprint(found), "{ring good service default: 3 processes") {
			t.Errorf("with the token: %+v", found)
		}
	})
	c.awaitRing(2)
	healthy("in the end")
}

// A clock that is off shows by the Date of a process' answers: here by way of a proxy that changes it.
func TestDoctorFindsClocks(t *testing.T) {
	c := newCluster(t, 1, 0)
	backend := c.backends["b1"]
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend.rpc})
	proxy.ModifyResponse = func(r *http.Response) error {
		r.Header.Set("Date", time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat))
		return nil
	}
	late := httptest.NewServer(proxy)
	defer late.Close()
	_, port, _ := strings.Cut(late.Listener.Addr().String(), ":")
	found, code := examine(t, "--backends", "b1="+backend.addr+"/"+port)
	wantBad(t, "clock", "behind", found, code)
}

func TestDoctorFindsCertificates(t *testing.T) {
	dir := t.TempDir()
	for name, days := range map[string]int{"days": 3, "weeks": 20, "year": 365, "over": -1} {
		cert, key := certificateFor(t, time.Duration(days)*24*time.Hour)
		writeFile(t, dir+"/"+name+".pem", cert)
		writeFile(t, dir+"/"+name+".key", key)
	}
	config := dir + "/edge.yaml"
	writeFile(t, config, fmt.Sprintf(`backends: b1=127.0.0.1:1
listen: [{addr: ":443", tls: {certs: [{cert: %[1]s/days.pem, key: %[1]s/days.key}, {cert: %[1]s/year.pem, key: %[1]s/year.key}]}}]
admin: {addr: "127.0.0.1:1", tls: {cert: %[1]s/weeks.pem, key: %[1]s/weeks.key}}
services: {default: {tls: {ca: %[1]s/over.pem}}}
`, dir))
	found, code := examine(t, "--config", config)
	wantBad(t, "certificates", "listen[0].tls.certs[0].cert: "+dir+"/days.pem: CN=days=72h0m0s ends in 2 days", found, code)
	wantBad(t, "certificates", "services.default.tls.ca: "+dir+"/over.pem: CN=days=-24h0m0s has ended", found, code)
	for level, file := range map[string]string{"warning": "weeks.pem", "good": "year.pem"} {
		if text := fmt.Sprint(found); !strings.Contains(text, "{certificates "+level+" ") || !strings.Contains(text, file) {
			t.Errorf("no %s of %s: %s", level, file, text)
		}
	}
}

func certificateFor(t *testing.T, valid time.Duration) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: fmt.Sprintf("days=%v", valid)},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(valid),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

func TestDoctorFindsConsulsTrouble(t *testing.T) {
	consul := testkit.StartConsulWithACLs(t)
	token := func(rules string) string {
		policy, _, err := consul.Client().ACL().PolicyCreate(&api.ACLPolicy{Name: fmt.Sprintf("p%d", time.Now().UnixNano()), Rules: rules}, nil)
		if err != nil {
			t.Fatal(err)
		}
		token, _, err := consul.Client().ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "token")
		writeFile(t, file, token.SecretID)
		return file
	}
	config := func(tokenFile, more string) string {
		file := filepath.Join(t.TempDir(), "selvedge.yaml")
		writeFile(t, file, fmt.Sprintf("consul: {addr: %q, token_file: %s}\n%s\n", consul.Addr, tokenFile, more))
		return file
	}
	const (
		backend = `backend: {id: b1, listen: "127.0.0.1:9000", service: chat}`
		reads   = `service_prefix "" { policy = "read" } node_prefix "" { policy = "read" }`
		writes  = reads + ` service "chat" { policy = "write" }`
	)
	for _, test := range []struct {
		name, file, lacks string
	}{
		{"no right at all", config(token(`key "x" { policy = "read" }`), ""), "service:read"},
		{"services only", config(token(`service_prefix "" { policy = "read" }`), ""), "node:read"},
		{"a backend that may not register", config(token(reads), backend), `service:write of "chat"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			found, code := examine(t, "--config", test.file)
			wantBad(t, "rights", test.lacks, found, code)
		})
	}
	for _, file := range []string{config(token(reads), ""), config(token(writes), backend)} {
		if found, _ := examine(t, "--config", file); !strings.Contains(fmt.Sprint(found), "{rights good ") {
			t.Errorf("enough rights: %+v", found)
		}
	}
	unknown := filepath.Join(t.TempDir(), "token")
	writeFile(t, unknown, "00000000-0000-0000-0000-00000000dead")
	found, code := examine(t, "--config", config(unknown, ""))
	wantBad(t, "rights", "403", found, code)
	good := config(token(reads), "")
	consul.Stop()
	found, code = examine(t, "--config", good)
	wantBad(t, "consul", "connection refused", found, code)
}

// In a network of its own a host can be broken for real.
func TestDoctorFindsKernelLimits(t *testing.T) {
	binary, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	set := "sysctl -qw net.core.somaxconn=128 net.ipv4.ip_local_port_range='40000 41000'"
	if _, err := exec.Command("unshare", "--net", "sh", "-c", set).CombinedOutput(); err != nil {
		t.Skip("needs a network namespace: ", err)
	}
	out, err := exec.Command("unshare", "--net", "sh", "-c", set+"; exec "+binary+" doctor --backends b1=127.0.0.1:1 --output text").CombinedOutput()
	if err == nil {
		t.Error("nothing is bad")
	}
	for _, want := range []string{"bad      somaxconn     net.core.somaxconn is 128", "-> sysctl -w net.core.somaxconn=4096", "bad      ports         net.ipv4.ip_local_port_range is 40000 to 41000"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
