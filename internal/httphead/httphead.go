// Package httphead tells whether the head of an HTTP message is written so plainly that no two parsers read it differently.
//
// It is the gate between a loop of the reactor and net/http: what is plain is read on the loop, by net/http's own parser; all else is left to
// net/http's server, which says what is wrong with it if anything is. A fuzz test holds it against that server.
package httphead

import "bytes"

// Reading is what is known of a head from its first bytes.
type Reading uint8

const (
	Plain   Reading = iota // it is whole, and says what it says in one way only
	Partial                // so far so plain
	Odd                    // not for the reactor
)

// Request tells whether b begins with the head of a request that is written so plainly that no two parsers read it differently, and
// how many bytes it has. This is no parser: a plain head is read by net/http's too. It only keeps away what that, or a server around it,
// would refuse, or treat in a way of its own: another method or version, a body, a line that ends or goes on oddly, a second Host.
func Request(b []byte) (size int, is Reading) {
	line, size, is := plainLine(b, 0)
	if is != Plain {
		return 0, is
	}
	target, ok := bytes.CutPrefix(line, []byte("GET "))
	if !ok {
		return 0, Odd
	}
	if target, ok = bytes.CutSuffix(target, []byte(" HTTP/1.1")); !ok || !plainTarget(target) {
		return 0, Odd
	}
	for hosts := 0; ; {
		if line, size, is = plainLine(b, size); is != Plain {
			return 0, is
		}
		if len(line) == 0 {
			if hosts != 1 {
				return 0, Odd
			}
			return size, Plain
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !only(line[:colon], nameBytes) || !only(line[colon+1:], valueBytes) {
			return 0, Odd
		}
		switch name, value := line[:colon], bytes.Trim(line[colon+1:], " "); {
		case named(name, "Host"):
			if hosts++; len(value) == 0 || !only(value, hostBytes) {
				return 0, Odd
			}
		case named(name, "Content-Length"), named(name, "Transfer-Encoding"), named(name, "Trailer"), named(name, "Expect"):
			return 0, Odd
		}
	}
}

// Switch is the same of a 101, whose fields are checked by those who read them.
func Switch(b []byte) (size int, is Reading) {
	if status := []byte("HTTP/1.1 101 "); !bytes.HasPrefix(b, status[:min(len(b), len(status))]) {
		return 0, Odd
	}
	for {
		var line []byte
		if line, size, is = plainLine(b, size); is != Plain {
			return 0, is
		}
		if len(line) == 0 {
			return size, Plain
		}
	}
}

// plainLine returns the line that starts at from, without its CRLF, and where the next one starts. Any other end is odd.
func plainLine(b []byte, from int) (line []byte, next int, is Reading) {
	end := bytes.IndexByte(b[from:], '\n')
	switch {
	case end < 0:
		return nil, 0, Partial
	case end == 0 || b[from+end-1] != '\r':
		return nil, 0, Odd
	}
	return b[from : from+end-1], from + end + 1, Plain
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
