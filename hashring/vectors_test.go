package hashring

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const vectorsFile = "testdata/vectors.json"

// The golden vectors, as SPEC.md describes them.
type (
	vectors struct {
		Comment string       `json:"comment"`
		Rings   []ringVector `json:"rings"`
	}
	ringVector struct {
		Name      string           `json:"name"`
		Members   []memberVector   `json:"members"`
		SecretHex string           `json:"secret_hex,omitempty"`
		Digest    string           `json:"digest"`
		Cells     map[string]int64 `json:"cells"`
		Keys      []keyVector      `json:"keys"`
		Hashes    []hashVector     `json:"hashes"`
	}
	memberVector struct {
		ID     string `json:"id"`
		Weight int    `json:"weight"`
	}
	keyVector struct {
		Key        string   `json:"key"`
		Hash       string   `json:"hash"`
		Owner      string   `json:"owner"`
		Successors []string `json:"successors"`
	}
	hashVector struct {
		Hash  string `json:"hash"`
		Owner string `json:"owner"`
	}
)

// vectorKeys reach each branch of the two hashes: every length up to 40 bytes, long ones, and what is not ASCII.
func vectorKeys() []string {
	keys := []string{"alice", "bob", "user-42", "zażółć gęślą jaźń", "用户一号", "\U0001f9f5", "\x00", "a b\tc\"d\\"}
	for n := range 41 {
		keys = append(keys, strings.Repeat("0123456789", 5)[:n])
	}
	return append(keys, strings.Repeat("x", 255), strings.Repeat("y", 256))
}

// goldenRings are the rings of the golden file, without what is computed.
func goldenRings() []ringVector {
	secret := hex.EncodeToString([]byte("sixteen byte key"))
	return []ringVector{
		{Name: "no members"},
		{Name: "no members, secret", SecretHex: secret},
		{Name: "one member", Members: []memberVector{{"b1", 1}}},
		{Name: "three members", Members: []memberVector{{"b1", 1}, {"b2", 1}, {"b3", 1}}},
		{Name: "weights", Members: []memberVector{{"light", 1}, {"heavy", 10}, {"none", 0}, {"middle", 3}}},
		{Name: "all of weight 0", Members: []memberVector{{"x", 0}, {"y", 0}}},
		{Name: "secret", Members: []memberVector{{"b1", 1}, {"b2", 2}, {"b3", 1}}, SecretHex: secret},
		{Name: "short secret", Members: []memberVector{{"b1", 1}, {"b2", 1}}, SecretHex: "00"},
		// In UTF-16 the last two stand the other way round.
		{Name: "order of bytes", Members: []memberVector{{"é", 1}, {"z", 1}, {"Z", 1}, {"\ufb01", 1}, {"\U0001f9f5", 1}}},
		{Name: "node/service", Members: []memberVector{{"node-1.example/chat-9000", 2}, {"10.0.0.7:9000", 1}, {"[::1]:9000", 1}}},
	}
}

// compute fills in what the ring answers.
func (v *ringVector) compute(t testing.TB, keys []string) {
	r := v.ring(t)
	v.Digest, v.Cells = r.Digest(), map[string]int64{}
	for _, m := range r.Members() {
		v.Cells[m.ID] = int64(r.Share(m.ID) * cells)
	}
	v.Keys, v.Hashes = []keyVector{}, []hashVector{}
	for _, key := range keys {
		successors := slices.AppendSeq([]string{}, r.Successors(key))
		v.Keys = append(v.Keys, keyVector{key, fmt.Sprintf("%016x", r.Hash(key)), r.Owner(key), successors})
	}
	for _, h := range naiveOf(r).edges(6) {
		v.Hashes = append(v.Hashes, hashVector{fmt.Sprintf("%016x", h), r.OwnerOfHash(h)})
	}
}

func (v *ringVector) ring(t testing.TB) *Ring {
	members := make([]Member, len(v.Members))
	for i, m := range v.Members {
		members[i] = Member(m)
	}
	if v.Members == nil {
		v.Members = []memberVector{}
	}
	var opts []Option
	if v.SecretHex != "" {
		secret, err := hex.DecodeString(v.SecretHex)
		if err != nil {
			t.Fatal(err)
		}
		opts = append(opts, WithSecret(secret))
	}
	return mustNew(t, members, opts...)
}

func encodeVectors(t testing.TB, v vectors) []byte {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

// TestGoldenVectors fails on any change of the algorithm: rings of two releases must agree, or users get lost. A change
// that is meant needs a new version in the domain strings of hash.go and in SPEC.md.
func TestGoldenVectors(t *testing.T) {
	v := vectors{Comment: "Golden vectors of hashring/SPEC.md, version 1. Written by go test -run TestGoldenVectors -update.",
		Rings: goldenRings()}
	for i := range v.Rings {
		v.Rings[i].compute(t, vectorKeys())
	}
	got := encodeVectors(t, v)
	if *update {
		if err := os.WriteFile(vectorsFile, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := bytes.Split(got, []byte("\n")), bytes.Split(want, []byte("\n"))
	for i := range min(len(gotLines), len(wantLines)) {
		if !bytes.Equal(gotLines[i], wantLines[i]) {
			t.Fatalf("%s:%d: the ring says %s, the file %s", vectorsFile, i+1, gotLines[i], wantLines[i])
		}
	}
	if len(gotLines) != len(wantLines) {
		t.Fatalf("%s has %d lines, want %d", vectorsFile, len(wantLines), len(gotLines))
	}
}

// TestJavaScript runs an implementation that knows SPEC.md only against the golden file and against rings that no one
// has seen before.
func TestJavaScript(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	run := func(t *testing.T, file string) {
		out, err := exec.CommandContext(t.Context(), node, "testdata/hashring.mjs", file).CombinedOutput()
		if err != nil {
			t.Fatalf("%v:\n%s", err, out)
		}
		t.Logf("%s", bytes.TrimSpace(out))
	}
	t.Run("golden", func(t *testing.T) { run(t, vectorsFile) })
	t.Run("random", func(t *testing.T) {
		gen := rapid.Custom(func(t *rapid.T) ringVector {
			v := ringVector{Name: rapid.StringMatching(`random [a-z]{8}`).Draw(t, "name")}
			for _, m := range genMembers(t) {
				v.Members = append(v.Members, memberVector(m))
			}
			if rapid.Bool().Draw(t, "keyed") {
				v.SecretHex = hex.EncodeToString(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "secret"))
			}
			return v
		})
		v := vectors{Comment: "random"}
		for seed := range 8 {
			ring := gen.Example(seed + os.Getpid()<<8)
			ring.compute(t, randomKeys(100))
			v.Rings = append(v.Rings, ring)
		}
		file := filepath.Join(t.TempDir(), "random.json")
		if err := os.WriteFile(file, encodeVectors(t, v), 0o644); err != nil {
			t.Fatal(err)
		}
		run(t, file)
	})
	t.Run("it can fail", func(t *testing.T) {
		v := vectors{Rings: []ringVector{{Name: "one", Members: []memberVector{{"a", 1}, {"b", 1}}}}}
		v.Rings[0].compute(t, []string{"k"})
		v.Rings[0].Keys[0].Owner = "c"
		file := filepath.Join(t.TempDir(), "wrong.json")
		if err := os.WriteFile(file, encodeVectors(t, v), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), node, "testdata/hashring.mjs", file).CombinedOutput(); err == nil {
			t.Errorf("a wrong owner passes: %s", out)
		}
	})
}
