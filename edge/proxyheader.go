package edge

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"

	"github.com/pires/go-proxyproto"
)

// The sizes of PROXY headers, https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
const (
	leastProxyHeader   = len("PROXY UNKNOWN\r\n") // no header is shorter
	mostProxyHeaderV1  = 107
	fixedProxyHeaderV2 = 16      // and the length that its last two bytes give
	mostProxyHeaderV2  = 4 << 10 // with its TLVs; the largest that balancers send are some hundreds
)

// fronted is a connection that came through a proxy of ours: its ends are those that the PROXY header has told.
type fronted struct {
	net.Conn
	peer, local net.Addr
}

func (f *fronted) RemoteAddr() net.Addr { return f.peer }
func (f *fronted) LocalAddr() net.Addr  { return f.local }

// SyscallConn lets a tunnel have the descriptor: not a byte was read beyond the header.
func (f *fronted) SyscallConn() (syscall.RawConn, error) {
	if c, ok := f.Conn.(syscall.Conn); ok {
		return c.SyscallConn()
	}
	return nil, errors.New("no descriptor")
}

func (f *fronted) CloseWrite() error {
	if half, ok := f.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// readProxyHeader reads the PROXY header, version 1 or 2, that every connection to such a listener must begin with, and that only trusted
// proxies may send. A header that tells no address (UNKNOWN, LOCAL: a balancer's health checks) leaves conn's own.
func readProxyHeader(conn net.Conn, live *live) (net.Conn, error) {
	if peer := peerOf(conn); !live.trusts(peer) {
		return nil, strangerError{peer}
	}
	raw, err := takeProxyHeader(conn)
	if err != nil {
		return nil, err
	}
	header, err := parseProxyHeader(raw)
	if err != nil {
		return nil, err
	}
	source, destination, ok := header.TCPAddrs()
	if !ok || header.Command.IsLocal() {
		return conn, nil
	}
	return &fronted{Conn: conn, peer: source, local: destination}, nil
}

func parseProxyHeader(raw []byte) (*proxyproto.Header, error) {
	return proxyproto.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)))
}

var errNoProxyHeader = errors.New("the connection does not begin with a PROXY header, as this listener wants it")

// takeProxyHeader reads what is a header by its size, and not a byte more: what follows is another's to read.
func takeProxyHeader(r io.Reader) ([]byte, error) {
	head := make([]byte, 0, 128)
	read := func(upTo int) error {
		for len(head) < upTo {
			head = append(head, make([]byte, upTo-len(head))...)[:len(head)] // room
			n, err := r.Read(head[len(head):upTo])
			head = head[:len(head)+n]
			if !beginsLike(head, proxyproto.SIGV1) && !beginsLike(head, proxyproto.SIGV2) {
				return errNoProxyHeader
			}
			if err != nil {
				return fmt.Errorf("the PROXY header breaks off: %w", err)
			}
		}
		return nil
	}
	if err := read(leastProxyHeader); err != nil {
		return nil, err
	}
	if bytes.HasPrefix(head, proxyproto.SIGV2) {
		if err := read(fixedProxyHeaderV2); err != nil {
			return nil, err
		}
		size := fixedProxyHeaderV2 + int(binary.BigEndian.Uint16(head[fixedProxyHeaderV2-2:]))
		if size > mostProxyHeaderV2 {
			return nil, fmt.Errorf("a PROXY header of %d bytes; at most %d are taken", size, mostProxyHeaderV2)
		}
		err := read(size) // which makes head longer
		return head, err
	}
	for head[len(head)-1] != '\n' { // a call for each byte: the length is not known, and it is read once a connection
		if len(head) == mostProxyHeaderV1 {
			return nil, fmt.Errorf("a PROXY header of version 1 without an end in %d bytes", mostProxyHeaderV1)
		}
		if err := read(len(head) + 1); err != nil {
			return nil, err
		}
	}
	return head, nil
}

func beginsLike(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

// proxyHeader is what a member that wants one is told of a connection's ends; v1 or v2. A client whose address is not known is UNKNOWN.
func proxyHeader(version ProxyProtocol, client netip.AddrPort, local net.Addr) []byte {
	v := byte(2)
	if version == ProxyV1 {
		v = 1
	}
	var source net.Addr
	if client.IsValid() {
		source = net.TCPAddrFromAddrPort(client)
	}
	header := proxyproto.HeaderProxyFromAddrs(v, source, local)
	out, err := header.Format()
	if err != nil {
		panic(err) // the library made the header
	}
	return out
}
