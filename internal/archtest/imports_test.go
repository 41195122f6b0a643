package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/selvedge/selvedge"

// mayImport lists, for each package of the module, which others of the module its code (not its tests) may import. An entry that ends in /...
// means everything below it.
var mayImport = map[string][]string{
	"": {"edge", "backend/...", "backend", "hashring", "internal/..."},

	"edge": {"edge/client", "hashring", "internal/admin", "internal/certs", "internal/config", "internal/discovery", "internal/httphead", "internal/identity",
		"internal/reactor", "internal/tunnel", "backend/sender", "backend/pushv1"},
	"edge/client": {},
	"backend": {"hashring", "backend/pushv1", "internal/admin", "internal/certs", "internal/config", "internal/discovery", "internal/homing", "internal/httphead",
		"internal/identity", "internal/peerlink", "internal/peerv1", "internal/pushlink", "internal/reactor", "internal/rpc", "internal/tracing"},
	"backend/backendtest": {"backend", "internal/discovery"},
	"backend/chat":        {"backend", "edge/client"}, // a file that pages load, whoever serves them
	"backend/sender":      {"backend/pushv1", "internal/discovery", "internal/pushlink", "internal/rpc", "internal/tracing"},
	"backend/pushv1":      {"internal/discovery"},

	"hashring":                 {},
	"internal/admin":           {"hashring", "internal/discovery"},
	"internal/archtest":        {},
	"internal/bench":           {"backend", "backend/sender", "internal/discovery", "internal/reactor"},
	"internal/bench/cmd/bench": {"internal/bench"},
	"internal/certs":           {},
	"internal/bridge":          {"backend/pushv1", "backend/sender", "internal/admin", "internal/config", "internal/identity"},
	"internal/config":          {"internal/admin", "internal/discovery"},
	"internal/discovery":       {"hashring"},
	"internal/doctor":          {"backend/pushv1", "internal/config", "internal/discovery", "internal/rpc"},
	"internal/homing":          {"hashring"},
	"internal/httphead":        {},
	"internal/identity":        {},
	"internal/otlp":            {},
	"internal/peerlink":        {"internal/peerv1", "internal/rpc"},
	"internal/peerv1":          {"backend/pushv1"},
	"internal/pushlink":        {"backend/pushv1", "internal/reactor", "internal/rpc"},
	"internal/reactor":         {},
	"internal/ringsim":         {"hashring"},
	"internal/rpc":             {"internal/certs"},
	"internal/systemtest":      {},
	"internal/systemd":         {},
	"internal/testkit":         {},
	"internal/tracing":         {},
	"internal/tunnel":          {"internal/reactor"},
}

// testsOnly lists packages that no code but tests may import.
var testsOnly = []string{"backend/backendtest", "internal/testkit", "internal/systemtest", "internal/archtest"}

// goPackage is what `go list` tells of a package.
type goPackage struct {
	ImportPath   string
	Dir          string
	GoFiles      []string
	IgnoredFiles []string `json:"IgnoredGoFiles"`
	Imports      []string
}

func (p goPackage) name() string {
	return strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
}

func packages(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,IgnoredGoFiles,Imports", module+"/...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	var list []goPackage
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := decoder.Decode(&p); errors.Is(err, io.EOF) {
			return list
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
}

func TestImports(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range packages(t) {
		name := p.name()
		seen[name] = true
		allowed, known := mayImport[name]
		if !known {
			t.Errorf("package %q has no line in mayImport: say there what it may import", name)
			continue
		}
		for _, path := range p.Imports {
			imported, ours := strings.CutPrefix(path, module+"/")
			if !ours {
				continue
			}
			if !slices.ContainsFunc(allowed, func(rule string) bool { return covers(rule, imported) }) {
				t.Errorf("%q imports %q, which the architecture does not allow", name, imported)
			}
			if slices.Contains(testsOnly, imported) {
				t.Errorf("%q imports %q, which is for tests only", name, imported)
			}
		}
	}
	for name := range mayImport {
		if !seen[name] {
			t.Errorf("mayImport has a line for %q, which is no package", name)
		}
	}
}

func covers(rule, imported string) bool {
	if prefix, tree := strings.CutSuffix(rule, "/..."); tree {
		return strings.HasPrefix(imported, prefix+"/")
	}
	return rule == imported
}

// The ring is for everybody: whoever imports it gets xxhash and nothing else.
func TestHashringStandsAlone(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", module+"/hashring").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range strings.Fields(string(out)) {
		if path != module+"/hashring" && path != "github.com/cespare/xxhash/v2" {
			t.Errorf("hashring depends on %s", path)
		}
	}
}
