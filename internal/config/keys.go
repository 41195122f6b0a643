package config

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// fields lists the keys of a struct type with the types of their values.
func fields(t reflect.Type) map[string]reflect.Type {
	keys := make(map[string]reflect.Type)
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("koanf"); key != "" {
			keys[key] = t.Field(i).Type
		}
	}
	return keys
}

// scalars lists the dotted keys, below prefix, that hold a single value.
func scalars(t reflect.Type, prefix string) []string {
	var keys []string
	for key, typ := range fields(t) {
		if typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		switch typ.Kind() {
		case reflect.Struct:
			keys = append(keys, scalars(typ, prefix+key+".")...)
		case reflect.Slice, reflect.Map:
		default:
			keys = append(keys, prefix+key)
		}
	}
	return keys
}

// checkKeys finds the first key of a YAML document that Settings does not have.
func checkKeys(file string, n *yaml.Node, t reflect.Type, path string) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case n.Kind == yaml.DocumentNode:
		return checkKeys(file, n.Content[0], t, path)
	case n.Kind == yaml.AliasNode:
		return checkKeys(file, n.Alias, t, path)
	case n.Kind == yaml.SequenceNode && t.Kind() == reflect.Slice:
		for i, item := range n.Content {
			if err := checkKeys(file, item, t.Elem(), fmt.Sprintf("%s[%d]", path, i)); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Map:
		for i := 0; i < len(n.Content); i += 2 {
			if err := checkKeys(file, n.Content[i+1], t.Elem(), join(path, n.Content[i].Value)); err != nil {
				return err
			}
		}
	case n.Kind == yaml.MappingNode && t.Kind() == reflect.Struct:
		known := fields(t)
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			typ, ok := known[key.Value]
			if !ok {
				return &Error{File: file, Line: key.Line, Key: join(path, key.Value), Text: "no such key here" + suggest(key.Value, known)}
			}
			if err := checkKeys(file, n.Content[i+1], typ, join(path, key.Value)); err != nil {
				return err
			}
		}
	}
	return nil
}

// lineOf finds the line of a dotted key such as listen[0].addr; 0 where it is not in the document.
func lineOf(n *yaml.Node, path string) int {
	if n.Kind == yaml.DocumentNode {
		n = n.Content[0]
	}
	line := 0
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		var next *yaml.Node
		switch n.Kind {
		case yaml.MappingNode:
			for i := 0; i < len(n.Content); i += 2 {
				if strings.EqualFold(n.Content[i].Value, part) {
					next = n.Content[i+1]
					line = n.Content[i].Line
				}
			}
		case yaml.SequenceNode:
			var index int
			if _, err := fmt.Sscan(part, &index); err == nil && index < len(n.Content) {
				next = n.Content[index]
				line = next.Line
			}
		}
		if next == nil {
			return line
		}
		n = next
	}
	return line
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// suggest names the known key that looks most like the one given.
func suggest(given string, known map[string]reflect.Type) string {
	best, distance := "", 3 // more than two letters off is another word
	for key := range known {
		if d := editDistance(given, key); d < distance || d == distance && key < best {
			best, distance = key, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %s?", best)
}

func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
