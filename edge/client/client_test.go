package client

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

const mostPacked = 4096 // bytes, as a promise to those whose pages load it

// typescript is the compiler that the system tests' package.json names.
const typescript = "../../internal/systemtest/testdata/js/node_modules/typescript/bin/tsc"

func TestServe(t *testing.T) {
	get := func(method string, fields ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest(method, Path, nil)
		for i := 0; i < len(fields); i += 2 {
			r.Header.Add(fields[i], fields[i+1])
		}
		w := httptest.NewRecorder()
		Serve(w, r)
		return w
	}
	plain, zipped := get("GET"), get("GET", "Accept-Encoding", "br, gzip;q=0.8")
	if !bytes.Equal(plain.Body.Bytes(), script) || plain.Header().Get("Content-Encoding") != "" {
		t.Errorf("%d bytes, %v; want selvedge.js", plain.Body.Len(), plain.Header())
	}
	small := zipped.Body.Len()
	r, err := gzip.NewReader(zipped.Body)
	if err != nil {
		t.Fatal(err)
	}
	if unpacked, err := io.ReadAll(r); err != nil || !bytes.Equal(unpacked, script) || zipped.Header().Get("Content-Encoding") != "gzip" {
		t.Errorf("%v, %v; want selvedge.js, packed", err, zipped.Header())
	}
	if small >= mostPacked {
		t.Errorf("selvedge.js has %d bytes when packed; fewer than %d are promised", small, mostPacked)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/javascript; charset=utf-8", "Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin",
		"Cache-Control": "no-cache", "Vary": "Accept-Encoding", "X-Content-Type-Options": "nosniff",
	} {
		for _, answer := range []*httptest.ResponseRecorder{plain, zipped} {
			if got := answer.Header().Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
	known := plain.Header().Get("ETag")
	if known == "" || known == zipped.Header().Get("ETag") {
		t.Errorf("ETags %s and %s; want one for each form", known, zipped.Header().Get("ETag"))
	}
	for _, c := range []struct {
		method string
		fields []string
		status int
		packed bool
	}{
		{"HEAD", nil, 200, false},
		{"GET", []string{"If-None-Match", known}, 304, false},
		{"GET", []string{"If-None-Match", `"older", ` + known}, 304, false},
		{"GET", []string{"If-None-Match", `"older"`}, 200, false},
		{"GET", []string{"If-None-Match", known, "Accept-Encoding", "gzip"}, 200, true},
		{"GET", []string{"If-None-Match", zipped.Header().Get("ETag"), "Accept-Encoding", "gzip"}, 304, true},
		{"GET", []string{"Accept-Encoding", "GZIP"}, 200, true},
		{"GET", []string{"Accept-Encoding", "br", "Accept-Encoding", "gzip;q=1"}, 200, true},
		{"GET", []string{"Accept-Encoding", "gzip;q=0"}, 200, false},
		{"GET", []string{"Accept-Encoding", "gzip; q=0.00, br"}, 200, false},
		{"GET", []string{"Accept-Encoding", "x-gzip"}, 200, false},
		{"GET", []string{"Accept-Encoding", ""}, 200, false},
	} {
		answer := get(c.method, c.fields...)
		isPacked := answer.Header().Get("ETag") == zipped.Header().Get("ETag")
		if answer.Code != c.status || isPacked != c.packed {
			t.Errorf("%s %q: %d, packed: %v", c.method, c.fields, answer.Code, isPacked)
		}
	}
}

// testdata/selvedge.test.mjs has the library's behaviour, by a clock of its own.
func TestLibrary(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "node", "--test", "--test-reporter=tap", "testdata/selvedge.test.mjs").CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("\n# fail 0\n")) || bytes.Contains(out, []byte("\n# pass 0\n")) {
		t.Errorf("%v; is Node there? `make deps` installs it\n%s", err, out)
	}
}

// It is the same thing to a classic script, to a module and to require.
func TestLoading(t *testing.T) {
	for kind, program := range map[string][]string{
		"a module":         {"--input-type=module", "-e", `import "./selvedge.js"; console.log(typeof Selvedge, typeof globalThis.Selvedge)`},
		"require":          {"-e", `require("./selvedge.js"); console.log(typeof Selvedge, typeof globalThis.Selvedge)`},
		"a classic script": {"-e", `require("vm").runInThisContext(fs.readFileSync("selvedge.js")); console.log(typeof Selvedge, typeof globalThis.Selvedge)`},
	} {
		if out, err := exec.CommandContext(t.Context(), "node", program...).CombinedOutput(); err != nil || string(out) != "function function\n" {
			t.Errorf("%s: %v\n%s", kind, err, out)
		}
	}
}

// The types fit a program that uses all of them, and what that program does when it runs.
func TestTypes(t *testing.T) {
	if _, err := os.Stat(typescript); err != nil {
		t.Fatal("the TypeScript compiler is not installed; run: make js")
	}
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "node", typescript, "--project", "testdata/types", "--outDir", dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, text := range map[string][]byte{"selvedge.js": script, "package.json": []byte(`{"type": "module"}`)} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err = exec.CommandContext(t.Context(), "node", filepath.Join(dir, "testdata/types/usage.js")).CombinedOutput()
	var got struct {
		Code, Sent int
		Kept       bool
		Said       []string
	}
	if err != nil || json.Unmarshal(out, &got) != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	want := []string{"connecting 0  false true", "open 0  false true", `{"id":"m1"}`, "moved 1012 moved true true", "closed 1000 enough false true"}
	if got.Code != 1000 || got.Sent != 1 || !got.Kept || !slices.Equal(got.Said, want) {
		t.Errorf("%s; want %q", out, want)
	}
}
