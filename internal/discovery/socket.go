package discovery

import (
	"fmt"
	"strings"
)

// unixPrefix begins the address of a member that listens on a socket in the file system, on this host.
const unixPrefix = "unix:"

// Network returns what package net calls the network and the address of a member's Addr: "tcp" and HOST:PORT, or "unix" and the path.
func Network(addr string) (network, address string) {
	if path, ok := strings.CutPrefix(addr, unixPrefix); ok {
		return "unix", path
	}
	return "tcp", addr
}

// IsSocket tells whether addr is unix:/PATH.
func IsSocket(addr string) bool { return strings.HasPrefix(addr, unixPrefix) }

// maxSocketPath is what Linux takes, less the final NUL; others take a little less.
const maxSocketPath = 107

// validateSocket tells what keeps unix:/PATH from being a member's address. The bytes that it takes mean nothing in a URL's host, as which
// net/http's pool of connections knows the address.
func validateSocket(addr string) error {
	path := strings.TrimPrefix(addr, unixPrefix)
	switch {
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("%q: want unix: and the whole path of a socket, like unix:/run/b1.sock", clip(addr))
	case len(path) > maxSocketPath:
		return fmt.Errorf("%q: the path has %d bytes, a socket's has at most %d", clip(addr), len(path), maxSocketPath)
	}
	for i := range len(path) {
		if c := path[i]; !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/._-+@", c) >= 0) {
			return fmt.Errorf("%q: %q cannot stand in a socket's path: letters, digits and /._-+@ can", clip(addr), c)
		}
	}
	return nil
}
