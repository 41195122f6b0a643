package edge

import "bytes"

// reading is what is known of a head from its first bytes.
type reading uint8

const (
	plain   reading = iota // it is whole, and says what it says in one way only
	partial                // so far so plain
	odd                    // not for the reactor: net/http reads it, and says what is wrong with it if anything is
)

// plainRequest tells whether b begins with the head of a request that is written so plainly that no two parsers read it differently, and
// how many bytes it has. This is no parser: a plain head is read by net/http's too. It only keeps away what that, or a server around it,
// would refuse, or treat in a way of its own: another method or version, a body, a line that ends or goes on oddly, a second Host.
func plainRequest(b []byte) (size int, is reading) {
	line, size, is := plainLine(b, 0)
	if is != plain {
		return 0, is
	}
	target, ok := bytes.CutPrefix(line, []byte("GET "))
	if !ok {
		return 0, odd
	}
	if target, ok = bytes.CutSuffix(target, []byte(" HTTP/1.1")); !ok || !plainTarget(target) {
		return 0, odd
	}
	for hosts := 0; ; {
		if line, size, is = plainLine(b, size); is != plain {
			return 0, is
		}
		if len(line) == 0 {
			if hosts != 1 {
				return 0, odd
			}
			return size, plain
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !only(line[:colon], nameBytes) || !only(line[colon+1:], valueBytes) {
			return 0, odd
		}
		switch name, value := line[:colon], bytes.Trim(line[colon+1:], " "); {
		case named(name, "Host"):
			if hosts++; len(value) == 0 || !only(value, hostBytes) {
				return 0, odd
			}
		case named(name, "Content-Length"), named(name, "Transfer-Encoding"), named(name, "Trailer"), named(name, "Expect"):
			return 0, odd
		}
	}
}

// plainSwitch is the same of a 101, whose fields are checked by those who read them.
func plainSwitch(b []byte) (size int, is reading) {
	if status := []byte("HTTP/1.1 101 "); !bytes.HasPrefix(b, status[:min(len(b), len(status))]) {
		return 0, odd
	}
	for {
		var line []byte
		if line, size, is = plainLine(b, size); is != plain {
			return 0, is
		}
		if len(line) == 0 {
			return size, plain
		}
	}
}

// plainLine returns the line that starts at from, without its CRLF, and where the next one starts. Any other end is odd.
func plainLine(b []byte, from int) (line []byte, next int, is reading) {
	end := bytes.IndexByte(b[from:], '\n')
	switch {
	case end < 0:
		return nil, 0, partial
	case end == 0 || b[from+end-1] != '\r':
		return nil, 0, odd
	}
	return b[from : from+end-1], from + end + 1, plain
}

func plainTarget(target []byte) bool {
	return len(target) > 0 && target[0] == '/' && !bytes.HasPrefix(target, []byte("//")) && only(target, targetBytes)
}

func named(name []byte, wanted string) bool {
	return len(name) == len(wanted) && bytes.EqualFold(name, []byte(wanted))
}

// byteSet is a set of ASCII characters.
type byteSet [256]bool

func setOf(chars string) *byteSet {
	s := new(byteSet)
	for i := range len(chars) {
		s[chars[i]] = true
	}
	return s
}

func only(b []byte, set *byteSet) bool {
	for _, c := range b {
		if !set[c] {
			return false
		}
	}
	return true
}

const (
	alphanumeric = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	// urlMarks are what else stands in a URL, RFC 3986 section 2, but for the fragment's mark.
	urlMarks = "!$%&'()*+,-./:;=?@[]_~"
)

var (
	nameBytes   = setOf(alphanumeric + "-_")
	hostBytes   = setOf(alphanumeric + "-_.:[]")
	targetBytes = setOf(alphanumeric + urlMarks)
	valueBytes  = setOf(alphanumeric + urlMarks + " \"#<>\\^`{|}")
)
