package testkit

import (
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
)

// FreePort returns a port of 127.0.0.1 that nobody listened on a moment ago, for TCP and UDP. Another process may take it before
// the caller does: who can listen on port 0 should; who cannot should try again with another port.
func FreePort(t testing.TB) int {
	t.Helper()
	ports, err := freePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	return ports[0]
}

// freePorts returns n different ports.
func freePorts(n int) ([]int, error) {
	const tries = 100 // that a port is free for TCP and taken for UDP is rare
	var ports []int
	var held []io.Closer // until all are found, so that they differ
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	for range n + tries {
		if len(ports) == n {
			return ports, nil
		}
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("no free port: %w", err)
		}
		held = append(held, tcp)
		port := tcp.Addr().(*net.TCPAddr).Port
		udp, err := net.ListenPacket("udp", loopback(port))
		if err != nil {
			continue
		}
		held = append(held, udp)
		ports = append(ports, port)
	}
	return nil, fmt.Errorf("no %d ports that are free for TCP and UDP in %d tries", n, tries)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
