package config

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "write schema.json anew")

// TestSchema makes the schema of Settings and compares it with the one that is checked in.
func TestSchema(t *testing.T) {
	root := node(reflect.TypeFor[Settings](), comments(t))
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of selvedge edge and selvedge backend"
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.json", text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(text.Bytes(), Schema()) {
		t.Error("schema.json is not that of Settings; run: go test ./internal/config -run TestSchema -update")
	}
}

// node is the schema of a type.
func node(t reflect.Type, said map[string]string) map[string]any {
	switch {
	case t.Kind() == reflect.Pointer:
		return node(t.Elem(), said)
	case t == reflect.TypeFor[time.Duration]():
		return map[string]any{"type": "string", "pattern": `^-?([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`}
	}
	switch t.Kind() {
	case reflect.Struct:
		properties := make(map[string]any)
		for i := range t.NumField() {
			field := t.Field(i)
			key := field.Tag.Get("koanf")
			if key == "" {
				continue
			}
			value := node(field.Type, said)
			if text := said[t.Name()+"."+field.Name]; text != "" {
				value["description"] = text
			}
			if values := field.Tag.Get("oneof"); values != "" {
				value["enum"] = strings.Fields(values)
			}
			properties[key] = value
		}
		return map[string]any{"type": "object", "properties": properties, "additionalProperties": false}
	case reflect.Map:
		if t.Elem().Kind() == reflect.String { // what a YAML reader takes for a number is meant as it stands there
			return map[string]any{"type": "object", "additionalProperties": map[string]any{"type": []string{"string", "number"}}}
		}
		return map[string]any{"type": "object", "additionalProperties": node(t.Elem(), said)}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": node(t.Elem(), said)}
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.String:
		return map[string]any{"type": "string"}
	default:
		panic("a setting of type " + t.String() + ": say here what its schema is")
	}
}

// comments are those behind the fields, or else that of the field's own type, by TYPE.FIELD.
func comments(t *testing.T) map[string]string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "settings.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	flat := func(c *ast.CommentGroup) string { return strings.Join(strings.Fields(c.Text()), " ") }
	types, said := make(map[string]string), make(map[string]string)
	each := func(visit func(name string, fields *ast.StructType, doc *ast.CommentGroup)) {
		for _, decl := range file.Decls {
			if general, ok := decl.(*ast.GenDecl); ok && general.Tok == token.TYPE {
				spec := general.Specs[0].(*ast.TypeSpec)
				if fields, ok := spec.Type.(*ast.StructType); ok {
					visit(spec.Name.Name, fields, general.Doc)
				}
			}
		}
	}
	each(func(name string, _ *ast.StructType, doc *ast.CommentGroup) {
		_, rest, _ := strings.Cut(flat(doc), " ") // without the type's name, and the verb behind it
		_, types[name], _ = strings.Cut(rest, " ")
	})
	each(func(name string, fields *ast.StructType, _ *ast.CommentGroup) {
		for _, field := range fields.Fields.List {
			text := flat(field.Comment)
			if text == "" {
				text = flat(field.Doc)
			}
			if text == "" {
				text = types[typeName(field.Type)]
			}
			for _, ident := range field.Names {
				said[name+"."+ident.Name] = text
			}
		}
	})
	return said
}

func typeName(x ast.Expr) string {
	switch x := x.(type) {
	case *ast.StarExpr:
		return typeName(x.X)
	case *ast.ArrayType:
		return typeName(x.Elt)
	case *ast.MapType:
		return typeName(x.Value)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("schema.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func fromYAML(t *testing.T, text string) any {
	t.Helper()
	var value any
	if err := yaml.Unmarshal([]byte(text), &value); err != nil {
		t.Fatal(err)
	}
	return value
}

// The schema refuses what loading refuses, and lets the rest through.
func TestSchemaAgreesWithLoad(t *testing.T) {
	s := compiled(t)
	for text, good := range map[string]bool{
		sample:                                   true,
		"{}":                                     true,
		"routes: [{pth: /}]":                     false,
		"admin: {adr: x}":                        false,
		"services: {chat: {retrys: 1}}":          false,
		"limits: {header_bytes: many}":           false,
		"routes: [{timeout: soon}]":              false,
		"listen: [{addr: ':1', tls: {}}]":        true,
		"services: {chat: {panic_threshold: 1}}": true,
	} {
		if err := s.Validate(fromYAML(t, text)); (err == nil) != good {
			t.Errorf("%s: schema: %v", text, err)
		}
		if _, err := Load(Sources{File: write(t, text), Env: []string{}}); (err == nil) != good {
			t.Errorf("%s: Load: %v", text, err)
		}
	}
	if err := s.Validate(fromYAML(t, "engine: steam")); err == nil {
		t.Error("the schema lets any engine through")
	}
}

// Every example of a configuration in the documentation loads, and is as the schema says: in *.md the blocks called yaml, and *.yaml below
// testdata/examples.
func TestExamples(t *testing.T) {
	s, examples := compiled(t), 0
	try := func(name, text string) {
		examples++
		if err := s.Validate(fromYAML(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := Load(Sources{File: write(t, text), Env: []string{}}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "node_modules" || d.Name() == ".git"):
			return fs.SkipDir
		case filepath.Ext(path) != ".md" && !strings.Contains(path, "testdata/examples/"):
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if filepath.Ext(path) == ".yaml" {
			try(path, string(text))
			return nil
		}
		for i, block := range strings.Split("\n"+string(text), "\n```yaml\n")[1:] {
			block, _, _ = strings.Cut(block, "\n```")
			try(path+" block "+strconv.Itoa(i+1), block+"\n")
		}
		return nil
	})
	if err != nil || examples == 0 {
		t.Fatalf("%d examples, %v", examples, err)
	}
}
