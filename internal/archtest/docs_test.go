package archtest

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each package says what it is for, in one place.
func TestOneDocCommentPerPackage(t *testing.T) {
	for _, p := range packages(t) {
		var with []string
		for _, file := range append(p.GoFiles, p.IgnoredFiles...) {
			parsed, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			if parsed.Doc != nil && !strings.HasPrefix(parsed.Doc.Text(), "Code generated") {
				with = append(with, file)
			}
		}
		if len(with) != 1 {
			t.Errorf("package %q has %d doc comments, in %v; want one", p.name(), len(with), with)
		}
	}
}

// The top level is the map of the house; nothing else belongs there.
func TestTopLevel(t *testing.T) {
	allowed := map[string]bool{
		"edge": true, "backend": true, "internal": true, "hashring": true, "deploy": true, "bin": true, "bench": true,
		"go.mod": true, "go.sum": true, "Makefile": true, "README.md": true, "LICENSE": true, "CHANGELOG.md": true,
	}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		name := entry.Name()
		if !allowed[name] && !strings.HasPrefix(name, ".") && !strings.HasSuffix(name, ".go") {
			t.Errorf("%s stands at the top level; architecture has no such room", name)
		}
	}
}
