package discovery

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// zone is what a small DNS server answers, by question: "A b1.example.test." -> records in the order of answers.
type zone map[string][]record

// record is an address, or the name that an alias leads to.
type record struct {
	name  string
	ttl   uint32
	addr  string
	alias string
}

// serve answers over UDP and TCP at one port, and returns how a resolver reaches it. Where truncate is set, UDP says no more than that.
func (z zone) serve(t *testing.T, truncate bool) func(ctx context.Context, network, _ string) (net.Conn, error) {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	t.Cleanup(func() { tcp.Close(); udp.Close(); <-done; <-done })
	go func() {
		defer func() { done <- struct{}{} }()
		buf := make([]byte, 1500)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if reply, err := z.answer(buf[:n], truncate); err == nil {
				_, _ = udp.WriteTo(reply, from)
			}
		}
	}()
	go func() {
		defer func() { done <- struct{}{} }()
		for {
			conn, err := tcp.Accept()
			if err != nil {
				return
			}
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err == nil {
				question := make([]byte, binary.BigEndian.Uint16(size[:]))
				_, _ = io.ReadFull(conn, question)
				if reply, err := z.answer(question, false); err == nil {
					_, _ = conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
				}
			}
			conn.Close()
		}
	}()
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, tcp.Addr().String())
	}
}

func (z zone) answer(question []byte, truncate bool) ([]byte, error) {
	var p dnsmessage.Parser
	head, err := p.Start(question)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	records := z[strings.TrimPrefix(q.Type.String(), "Type")+" "+q.Name.String()]
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: head.ID, Response: true, RecursionDesired: true, RecursionAvailable: true, Truncated: truncate},
		Questions: []dnsmessage.Question{q},
	}
	if !strings.HasSuffix(q.Name.String(), ".example.test.") || strings.HasPrefix(q.Name.String(), "none") {
		reply.RCode = dnsmessage.RCodeNameError
	}
	for _, r := range records {
		if truncate {
			break
		}
		rh := dnsmessage.ResourceHeader{Name: dnsmessage.MustNewName(r.name), Class: dnsmessage.ClassINET, TTL: r.ttl}
		var body dnsmessage.ResourceBody
		switch {
		case r.alias != "":
			body = &dnsmessage.CNAMEResource{CNAME: dnsmessage.MustNewName(r.alias)}
		case q.Type == dnsmessage.TypeA:
			body = &dnsmessage.AResource{A: netip.MustParseAddr(r.addr).As4()}
		default:
			body = &dnsmessage.AAAAResource{AAAA: netip.MustParseAddr(r.addr).As16()}
		}
		reply.Answers = append(reply.Answers, dnsmessage.Resource{Header: rh, Body: body})
	}
	return reply.Pack()
}

// TestLookup: the addresses of a name, sorted, and the shortest of the TTLs on the way to them, over datagrams and over streams.
func TestLookup(t *testing.T) {
	z := zone{
		"A b1.example.test.":    {{"b1.example.test.", 60, "192.0.2.9", ""}, {"b1.example.test.", 60, "192.0.2.1", ""}},
		"AAAA b1.example.test.": {{"b1.example.test.", 40, "2001:db8::1", ""}},
		"A alias.example.test.": {{"alias.example.test.", 7, "", "b2.example.test."}, {"b2.example.test.", 300, "192.0.2.2", ""}},
		"A zero.example.test.":  {{"zero.example.test.", 0, "192.0.2.3", ""}},
	}
	tests := []struct {
		host  string
		addrs string
		ttl   time.Duration
	}{
		{"b1.example.test", "[192.0.2.1 192.0.2.9 2001:db8::1]", 40 * time.Second},
		{"alias.example.test", "[192.0.2.2]", 7 * time.Second},
		{"zero.example.test", "[192.0.2.3]", time.Second},
		{"localhost", "[127.0.0.1", 0}, // from the hosts file
	}
	for _, truncate := range []bool{false, true} {
		dial := z.serve(t, truncate)
		for _, test := range tests {
			t.Run(fmt.Sprint(test.host, " truncated=", truncate), func(t *testing.T) {
				addrs, ttl, err := lookup(t.Context(), test.host, dial)
				if err != nil || !strings.HasPrefix(fmt.Sprint(addrs), test.addrs) || ttl != test.ttl {
					t.Errorf("got %v, %v, %v; want %s, %v", addrs, ttl, err, test.addrs, test.ttl)
				}
			})
		}
		if addrs, _, err := lookup(t.Context(), "none.example.test", dial); !isNotFound(err) {
			t.Errorf("a name that does not exist: %v, %v", addrs, err)
		}
	}
}

func isNotFound(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns) && dns.IsNotFound
}

// FuzzTTLs: whatever a server sends, listening in does not fail.
func FuzzTTLs(f *testing.F) {
	question := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName("b1.example.test."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET}}}
	text, err := question.Pack()
	if err != nil {
		f.Fatal(err)
	}
	good, err := zone{"A b1.example.test.": {{"b1.example.test.", 60, "192.0.2.9", ""}}}.answer(text, false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, message []byte) {
		var heard ttls
		heard.hear(message)
		if slices.Equal(message, good) && heard.least() != time.Minute {
			t.Fatal(heard.least())
		}
	})
}
