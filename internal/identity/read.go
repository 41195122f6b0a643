package identity

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxUserID is the length of the longest user id, in bytes.
const MaxUserID = 256

// checkUserID says what keeps id from being a user id; "": nothing.
func checkUserID(id string) string {
	switch {
	case id == "":
		return "is empty; want 1 to 256 bytes"
	case len(id) > MaxUserID:
		return fmt.Sprintf("has %d bytes; want 1 to 256", len(id))
	case !utf8.ValidString(id):
		return "is not valid UTF-8"
	case strings.ContainsFunc(id, unicode.IsControl):
		return "contains a control character"
	}
	return ""
}

// read returns what the request has at s, undecided whether it is a user id.
func (s *source) read(head *RequestHead) (value string, present bool, err error) {
	switch s.kind {
	case kindQuery:
		return s.readQuery(head.RawQuery)
	case kindHeader:
		if s.name == "Host" {
			return head.Host, head.Host != "", nil
		}
		return s.single(head.Header(s.name))
	case kindCookie:
		return s.readCookies(head.Header("Cookie"))
	case kindPath:
		return s.readPath(head.Path)
	case kindIP:
		if !head.Client.IsValid() {
			return "", false, nil
		}
		return head.Client.Unmap().WithZone("").String(), true, nil
	}
	return "", false, s.fail(Invalid, "tokens cannot be verified here") // a key that NeedsAuth is refused at configuration time
}

// one collects the values of a source that must agree.
type one struct {
	value   string
	present bool
}

func (o *one) add(value string) (agrees bool) {
	if o.present {
		return o.value == value
	}
	o.value, o.present = value, true
	return true
}

func (s *source) single(values []string) (string, bool, error) {
	var o one
	for _, v := range values {
		if !o.add(v) {
			return "", false, s.fail(Ambiguous, "given more than once, with different values")
		}
	}
	return o.value, o.present, nil
}

// readQuery reads the whole query strictly, as [net/url.ParseQuery] does, and not only up to the parameter it looks for: a query
// that parsers read differently must not choose a user.
func (s *source) readQuery(raw string) (string, bool, error) {
	var o one
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		if strings.Contains(pair, ";") {
			return "", false, s.fail(Invalid, "the query contains a bare semicolon; write %3B")
		}
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, ok1 := unescape(rawName, true)
		value, ok2 := unescape(rawValue, true)
		if !ok1 || !ok2 {
			return "", false, s.fail(Invalid, "the query contains a bad percent-escape")
		}
		if name == s.name && !o.add(value) {
			return "", false, s.fail(Ambiguous, "given more than once, with different values")
		}
	}
	return o.value, o.present, nil
}

// readCookies reads Cookie fields, RFC 6265 section 4.2.1.
func (s *source) readCookies(lines []string) (string, bool, error) {
	var o one
	for _, line := range lines {
		for pair := range strings.SplitSeq(line, ";") {
			name, value, found := strings.Cut(strings.Trim(pair, " \t"), "=")
			if !found || strings.TrimRight(name, " \t") != s.name {
				continue
			}
			value = strings.TrimLeft(value, " \t")
			if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
				value = value[1 : n-1]
			}
			if !o.add(value) {
				return "", false, s.fail(Ambiguous, "given more than once, with different values")
			}
		}
	}
	return o.value, o.present, nil
}

// readPath finds the N-th segment. Dot segments before or at it are refused: a backend that resolves them would count otherwise.
func (s *source) readPath(path string) (string, bool, error) {
	rest, rooted := strings.CutPrefix(path, "/")
	if !rooted {
		return "", false, nil
	}
	for n := 1; ; n++ {
		segment, after, more := strings.Cut(rest, "/")
		value, ok := unescape(segment, false)
		if !ok {
			return "", false, s.fail(Invalid, "the path contains a bad percent-escape")
		}
		if value == "." || value == ".." {
			return "", false, s.fail(Invalid, "the path contains a dot segment")
		}
		if n == s.segment {
			return value, value != "", nil
		}
		if !more {
			return "", false, nil
		}
		rest = after
	}
}

// unescape decodes %XX, and + as a space where form is set; false for an escape that is none.
func unescape(s string, form bool) (string, bool) {
	i := strings.IndexByte(s, '%')
	if i < 0 && (!form || !strings.Contains(s, "+")) {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", false
			}
			hi, ok1 := unhex(s[i+1])
			lo, ok2 := unhex(s[i+2])
			if !ok1 || !ok2 {
				return "", false
			}
			b = append(b, hi<<4|lo)
			i += 2
		case c == '+' && form:
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return string(b), true
}

func unhex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10, true
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// UnescapePath decodes the percent-escapes of a path once; false: one of them is none.
func UnescapePath(path string) (string, bool) { return unescape(path, false) }
