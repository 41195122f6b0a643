package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A registry file reads
//
//	services:
//	  chat:
//	    - {id: b1, addr: "10.0.0.1:9000", rpc: "10.0.0.1:9100", weight: 2, state: serving}
//
// id and addr are required, and addr can be unix:/PATH; without rpc a member cannot be pushed to; the weight is 1 and the state serving where
// they are not given; public_url is where clients reach the member without an edge. It is read node by node, so that each error names its
// line and a misspelt key is one.

// parseRegistry reads a registry file; name is what errors call it. Members are sorted by ID.
func parseRegistry(name string, data []byte) (map[string][]Member, error) {
	doc, err := parseOneDocument(data)
	var services map[string][]Member
	if err == nil {
		services, err = registryServices(doc)
	}
	if err != nil {
		var at *lineError
		if errors.As(err, &at) {
			return nil, fmt.Errorf("%s:%d: %w", name, at.line, at.err)
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return services, nil
}

// lineError is what is wrong with a line of the file.
type lineError struct {
	line int
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("line %d: %v", e.line, e.err) }
func (e *lineError) Unwrap() error { return e.err }

func lineErrorf(n *yaml.Node, format string, args ...any) error {
	return &lineError{line: n.Line, err: fmt.Errorf(format, args...)}
}

func parseOneDocument(data []byte) (*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, errNoServices
	} else if err != nil {
		return nil, syntaxError(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, errors.New("it holds more than one YAML document; keep one")
	}
	return doc.Content[0], nil
}

// syntaxError takes the line out of the text in which the YAML package writes it.
func syntaxError(err error) error {
	var line int
	if _, scanErr := fmt.Sscanf(err.Error(), "yaml: line %d:", &line); scanErr != nil {
		return err
	}
	_, text, _ := strings.Cut(strings.TrimPrefix(err.Error(), "yaml: "), ": ")
	return &lineError{line: line, err: errors.New(text)}
}

// errNoServices also meets a file that is being written anew: what is empty or cut short must not empty the ring. So nothing
// is taken for an empty list but an empty list.
var errNoServices = errors.New("it names no services; write `services: {}` to say that there is none")

func registryServices(doc *yaml.Node) (map[string][]Member, error) {
	var services map[string][]Member
	err := eachPair(doc, "the file", func(key, value *yaml.Node) error {
		if key.Value != "services" {
			return lineErrorf(key, "unknown key %q; the only one is services", clip(key.Value))
		}
		if isNull(resolve(value)) {
			return errNoServices
		}
		services = make(map[string][]Member)
		return eachPair(value, "services", func(key, value *yaml.Node) (err error) {
			if key.Value == "" {
				return lineErrorf(key, "a service without a name")
			}
			services[key.Value], err = registryMembers(key.Value, value)
			return err
		})
	})
	if err == nil && services == nil {
		err = errNoServices
	}
	return services, err
}

func registryMembers(service string, list *yaml.Node) ([]Member, error) {
	list = resolve(list)
	if list.Kind != yaml.SequenceNode {
		return nil, lineErrorf(list, "service %q: expected a list of members; write [] for none", clip(service))
	}
	members := make([]Member, 0, len(list.Content))
	lines := make(map[string]int)
	for _, n := range list.Content {
		m, err := registryMember(n)
		if err != nil {
			return nil, err
		}
		if line, taken := lines[m.ID]; taken {
			return nil, lineErrorf(n, "id %q of service %q stands in line %d already", clip(m.ID), clip(service), line)
		}
		lines[m.ID] = n.Line
		members = append(members, m)
	}
	sortMembers(members)
	return members, nil
}

func registryMember(n *yaml.Node) (Member, error) {
	m := Member{Weight: 1}
	err := eachPair(n, "a member", func(key, value *yaml.Node) error {
		value = resolve(value)
		if value.Kind != yaml.ScalarNode || isNull(value) {
			return lineErrorf(value, "%s: expected a single value", clip(key.Value))
		}
		text := value.Value
		var err error
		switch key.Value {
		case "id":
			m.ID, err = text, validateID(text)
		case "addr":
			if m.Addr = text; IsSocket(text) {
				err = validateSocket(text)
			} else {
				m.Addr, err = registryAddr(text)
			}
		case "rpc":
			m.RPCAddr, err = registryAddr(text)
		case "public_url":
			if m.PublicURL = text; !isPublicURL(text) {
				err = fmt.Errorf("%q is not a URL with scheme and host", clip(text))
			}
		case "weight":
			if m.Weight, err = strconv.Atoi(text); err != nil {
				err = fmt.Errorf("%q is not a number", clip(text))
			} else {
				err = validateWeight(m.Weight)
			}
		case "state":
			m.State, err = ParseState(text)
		default:
			return lineErrorf(key, "unknown key %q; a member has id, addr, rpc, weight, state, public_url", clip(key.Value))
		}
		if err != nil {
			return lineErrorf(value, "%s: %w", key.Value, err)
		}
		return nil
	})
	switch {
	case err != nil:
		return m, err
	case m.ID == "":
		return m, lineErrorf(n, "a member without id")
	case m.Addr == "":
		return m, lineErrorf(n, "member %q has no addr", clip(m.ID))
	}
	return m, nil
}

func registryAddr(text string) (string, error) {
	host, port, err := splitAddr(text)
	if err != nil {
		return "", err
	}
	if host == "" {
		return "", fmt.Errorf("%q has no host", clip(text))
	}
	return joinAddr(host, port), nil
}

// eachPair calls f with the pairs of a mapping; what is how errors call it. Nothing at all is an empty mapping.
func eachPair(n *yaml.Node, what string, f func(key, value *yaml.Node) error) error {
	n = resolve(n)
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		return lineErrorf(n, "%s: expected keys and values", what)
	}
	lines := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		if key.Kind != yaml.ScalarNode {
			return lineErrorf(key, "%s: expected a name as key", what)
		}
		if line, taken := lines[key.Value]; taken {
			return lineErrorf(key, "%s: key %q stands in line %d already", what, clip(key.Value), line)
		}
		lines[key.Value] = key.Line
		if err := f(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func resolve(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias
	}
	return n
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}
