package identity

import (
	"errors"
	"fmt"
	"net/textproto"
	"strconv"
	"strings"
)

// ErrNeedsAuth is returned when a key reads a token and nothing is configured that could verify tokens.
var ErrNeedsAuth = errors.New("a key of the form jwt:CLAIM needs `auth` (an issuer's keys to verify tokens with), " +
	"which this edge has none of; set it, or choose query:, header:, cookie: or path:")

type kind uint8

const (
	kindQuery kind = iota
	kindHeader
	kindCookie
	kindPath
	kindJWT
	kindIP
	kindNone
	kindProtocol // of tokens only
)

// source is one part of a key expression.
type source struct {
	kind    kind
	name    string // of the parameter, field, cookie or claim
	segment int    // kindPath, from 1
	label   string // what errors call it; comes from the configuration, never from a request
}

// Key is a parsed key expression. The zero value finds no user in any request, as `none` does.
type Key struct {
	expr    string
	sources []source
}

// ParseKey parses a key expression, such as "query:user,cookie:uid". The error says which part is wrong and what would be right.
func ParseKey(expr string) (Key, error) {
	if strings.TrimSpace(expr) == "" {
		return Key{}, errors.New(`key: empty; say for instance query:user, or none where requests need no user`)
	}
	k := Key{expr: expr}
	for part := range strings.SplitSeq(expr, ",") {
		s, err := parseSource(strings.TrimSpace(part))
		if err != nil {
			return Key{}, fmt.Errorf("key %q: %w", expr, err)
		}
		if n := len(k.sources); n > 0 {
			if last := k.sources[n-1]; last.kind == kindIP || last.kind == kindNone {
				return Key{}, fmt.Errorf("key %q: %s is present in every request, so that %q after it would never be asked; put it last",
					expr, last.label, strings.TrimSpace(part))
			}
			if (s.kind == kindJWT) != (k.sources[0].kind == kindJWT) {
				return Key{}, fmt.Errorf("key %q: jwt cannot be mixed with unverified sources: whoever leaves the token out could be anyone; "+
					"use two routes", expr)
			}
		}
		k.sources = append(k.sources, s)
	}
	return k, nil
}

func parseSource(part string) (source, error) {
	typ, name, named := strings.Cut(part, ":")
	s := source{name: name}
	switch typ {
	case "query":
		s.kind, s.label = kindQuery, "query parameter "+strconv.Quote(name)
	case "header":
		s.kind, s.label = kindHeader, "header "+strconv.Quote(name)
		if !isToken(name) {
			return source{}, fmt.Errorf("%q: header: wants the name of a header field, like header:X-User", part)
		}
		s.name = textproto.CanonicalMIMEHeaderKey(name)
	case "cookie":
		s.kind, s.label = kindCookie, "cookie "+strconv.Quote(name)
		if !isToken(name) { // a cookie's name is a token too, RFC 6265 section 4.1.1
			return source{}, fmt.Errorf("%q: cookie: wants the name of a cookie, like cookie:uid", part)
		}
	case "path":
		s.kind, s.label = kindPath, "path segment "+name
		n, err := strconv.Atoi(name)
		if err != nil || n < 1 || strconv.Itoa(n) != name {
			return source{}, fmt.Errorf("%q: path: wants the number of a segment, from 1, like path:2 for /room/USER", part)
		}
		s.segment = n
	case "jwt":
		s.kind, s.label = kindJWT, "token claim "+strconv.Quote(name)
	case "ip", "none":
		if named {
			return source{}, fmt.Errorf("%q: %s stands alone, without a name", part, typ)
		}
		s.kind, s.label = kindIP, "the client's address"
		if typ == "none" {
			s.kind, s.label = kindNone, "none"
		}
		return s, nil
	default:
		return source{}, fmt.Errorf("%q: want query:NAME, header:NAME, cookie:NAME, path:N, jwt:CLAIM, ip or none", part)
	}
	if name == "" {
		return source{}, fmt.Errorf("%q: the name is missing, as in %s:user", part, typ)
	}
	return s, nil
}

// String returns the expression as it was given.
func (k Key) String() string { return k.expr }

// NeedsAuth tells whether k reads tokens, which only a verifier can do: see [ErrNeedsAuth].
func (k Key) NeedsAuth() bool { return len(k.sources) > 0 && k.sources[0].kind == kindJWT }

// UserID returns the user that head is from, or "" where k says that there is none (`none`). The error is an [*Error]; its text may
// be shown to the client. Cost: one pass over the part of the head that k names; nothing is allocated but decoded values.
func (k Key) UserID(head *RequestHead) (string, error) {
	for i := range k.sources {
		s := &k.sources[i]
		if s.kind == kindNone {
			return "", nil
		}
		value, present, err := s.read(head)
		if err != nil {
			return "", err
		}
		if !present {
			continue
		}
		if problem := checkUserID(value); problem != "" {
			return "", s.fail(Invalid, problem)
		}
		return value, nil
	}
	if len(k.sources) == 0 {
		return "", nil
	}
	return "", &Error{Reason: Missing, Source: k.labels(), Problem: "not given"}
}

func (k Key) labels() string {
	labels := make([]string, len(k.sources))
	for i, s := range k.sources {
		labels[i] = s.label
	}
	return strings.Join(labels, " or ")
}

// isToken tells whether s is a token of RFC 9110 section 5.6.2: what a header field or a cookie can be called.
func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}
