package edge

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

// FieldRules change the header fields of what passes. Fields are removed first, then set: Set replaces whatever was there of that name.
// Names have no case; in requests every spelling of a name counts, as backends that map fields to variables read them (X_Real_Ip is X-Real-Ip).
type FieldRules struct {
	Set    map[string]string
	Remove []string
}

// fieldRules are checked FieldRules: names are canonical, and those that are set are removed first.
type fieldRules struct {
	remove []string
	set    http.Header
	plain  []string // those of remove as plainName has them
}

func newFieldRules(from FieldRules) fieldRules {
	var rules fieldRules
	for name, value := range from.Set {
		if rules.set == nil {
			rules.set = make(http.Header, len(from.Set))
		}
		rules.set[http.CanonicalHeaderKey(name)] = []string{value}
	}
	rules.remove = slices.Sorted(maps.Keys(rules.set))
	for _, name := range from.Remove {
		rules.remove = append(rules.remove, http.CanonicalHeaderKey(name))
	}
	for _, name := range rules.remove {
		rules.plain = append(rules.plain, plainName(name))
	}
	return rules
}

// request applies the rules to the fields of a request.
func (rules *fieldRules) request(h http.Header) {
	if len(rules.plain) > 0 {
		maps.DeleteFunc(h, func(name string, _ []string) bool { return slices.Contains(rules.plain, plainName(name)) })
	}
	rules.add(h)
}

// response applies them to the fields of a backend's answer. The edge's own answers have no others than the contract names.
func (rules *fieldRules) response(h http.Header) {
	for _, name := range rules.remove {
		delete(h, name)
	}
	rules.add(h)
}

func (rules *fieldRules) add(h http.Header) {
	for name, values := range rules.set {
		h[name] = slices.Clone(values)
	}
}

// check says what is wrong with the rules, by name.
func (f FieldRules) check() error {
	seen := make(map[string]string)
	for _, name := range append(slices.Sorted(maps.Keys(f.Set)), f.Remove...) {
		if !isToken(name) {
			return fmt.Errorf("%q cannot be the name of a field", name)
		}
		if why := notOurs(name); why != "" {
			return fmt.Errorf("%s: %s; leave it out", name, why)
		}
		plain := plainName(name)
		if other, ok := seen[plain]; ok {
			return fmt.Errorf("%s and %s are the same field; keep one", other, name)
		}
		seen[plain] = name
		if value, ok := f.Set[name]; ok && (value == "" || !validFieldValue(value) || strings.TrimSpace(value) != value) {
			return fmt.Errorf("%s: the value %q cannot stand in a field: want text without control characters and blanks around it; "+
				"to drop a field, list it under remove", name, value)
		}
	}
	return nil
}

// notOurs tells why the field is not for rules to touch; "": it is.
func notOurs(name string) string {
	plain := plainName(name)
	switch canonical := http.CanonicalHeaderKey(plain); {
	case strings.HasPrefix(plain, "x-selvedge-"):
		return "backends take it for the edge's own word"
	case slices.Contains(hopByHop, canonical):
		return "it belongs to one connection, on which the edge speaks for itself"
	case strings.HasPrefix(plain, "sec-websocket-"):
		return "it belongs to the handshake between client and backend"
	case plain == "host":
		return "it passes as the client sent it, as routes read it"
	case plain == "content-length", plain == "expect":
		return "it says how the body comes, which the edge does not change"
	}
	return ""
}

// isToken tells whether s can be the name of a field, RFC 9110 section 5.1.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
