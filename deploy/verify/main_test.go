package verify

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// file reads one of deploy/.
func file(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var buildDir string // of the binary; "": it is not built yet

// build makes selvedge as the Dockerfile does, once.
var build = sync.OnceValues(func() (path string, err error) {
	if buildDir, err = os.MkdirTemp("", "selvedge-verify-"); err != nil {
		return "", err
	}
	path = filepath.Join(buildDir, "selvedge")
	cmd := exec.Command("go", "build", "-C", "../..", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// binary is the program that the files run.
func binary(t *testing.T) (path string) {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if buildDir != "" {
		_ = os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// selvedge runs a command that must succeed.
func selvedge(t *testing.T, environ []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary(t), args...)
	cmd.Env = append(os.Environ(), environ...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("selvedge %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// wantCommand checks that a command line is one of selvedge's: with --help it is parsed and not carried out.
func wantCommand(t *testing.T, args ...string) {
	t.Helper()
	if out := selvedge(t, nil, append(args, "--help")...); !strings.Contains(out, "selvedge "+args[0]) {
		t.Errorf("selvedge %s --help is not the help of %s:\n%s", strings.Join(args, " "), args[0], out)
	}
}

// wantConfig checks that `selvedge check` takes a configuration, with the secrets that secrets.sh makes where it looks for them.
func wantConfig(t *testing.T, config string, environ ...string) {
	t.Helper()
	dir := secrets(t)
	for _, place := range []string{"/etc/selvedge/secrets", "/run/secrets", "/etc/selvedge/tls", "/secrets"} {
		config = strings.ReplaceAll(config, place, dir)
	}
	name := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(name, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := selvedge(t, environ, "check", "--config", name); !strings.Contains(out, ": good: ") {
		t.Errorf("%s\n%s", out, config)
	}
}

// secrets makes those of secrets.sh, and what stands beside them.
func secrets(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("../secrets.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("secrets.sh: %v\n%s", err, out)
	}
	for _, name := range []string{"consul-edge", "consul-backend", "consul-sender"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(rand.Text()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"chat.example.com"}, NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: cert}, "key.pem": {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestConfigurations(t *testing.T) {
	wantConfig(t, file(t, "config/edge.yaml"))
	wantConfig(t, file(t, "config/backend.yaml"))
	wantConfig(t, file(t, "config/bridge.yaml"), brokerURL)
	if strings.Contains(file(t, "config/bridge.yaml"), "\n  amqp:") {
		t.Error("bridge.yaml has the broker's URL, and with it a password")
	}
}

// brokerURL is what stands in bridge.env, and in Kubernetes' and Nomad's secrets.
const brokerURL = "SELVEDGE_BRIDGE__AMQP=amqps://user:password@broker.example/chat"

// stopTime is what a process may take from SIGTERM to its end, by its configuration.
func stopTime(t *testing.T, role, config string) time.Duration {
	t.Helper()
	var settings struct {
		Drain  string `json:"drain_timeout"`
		Bridge struct {
			Timeout string `json:"timeout"`
		} `json:"bridge"`
	}
	if err := yaml.Unmarshal([]byte(config), &settings); err != nil {
		t.Fatal(err)
	}
	text := settings.Drain
	if role == "bridge" {
		text = settings.Bridge.Timeout
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", role, err)
	}
	if role == "bridge" {
		// A try under way and what is put aside after it, or three heartbeats of a broker that says nothing; then two seconds for a goodbye.
		d = max(2*d, 15*time.Second) + 2*time.Second
	}
	return d
}

// secrets.sh leaves alone what is there, and nobody else may read what it makes.
func TestSecrets(t *testing.T) {
	dir := secrets(t)
	before, err := os.ReadFile(filepath.Join(dir, "edge-secret"))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("../secrets.sh", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if after, err := os.ReadFile(filepath.Join(dir, "edge-secret")); err != nil || string(after) != string(before) || len(after) < 44 {
		t.Errorf("%q, then %q, %v", before, after, err)
	}
	for _, name := range []string{"edge-secret", "rpc-token", "peer-token", "admin-token", "edge.env"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
}
