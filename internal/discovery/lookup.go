package discovery

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// lookup finds the addresses of a host name and how long they may be used; 0: nobody said (the name stands in the hosts file). It is package net's
// own resolver, with its hosts file, search list, servers and retries, over connections that we listen in on: net does not tell the TTL.
// dial reaches the servers; nil: as package net does.
func lookup(ctx context.Context, host string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) ([]netip.Addr, time.Duration, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	var heard ttls
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if udp, ok := conn.(*net.UDPConn); ok { // the resolver tells datagrams from streams by the type
			return &listeningUDP{udp, &heard}, nil
		}
		return &listeningTCP{Conn: conn, heard: &heard}, nil
	}}
	addrs, err := resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, 0, err
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), heard.least(), nil
}

// ttls is the shortest TTL of the records heard, along aliases too. Questions for both address families are asked at once.
type ttls struct {
	mu    sync.Mutex
	found bool
	ttl   time.Duration
}

func (t *ttls) least() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.found {
		return max(t.ttl, time.Second) // a TTL of 0 is for one use; once a second is what we make of it
	}
	return 0
}

// hear takes in a message. What is no answer says nothing of TTLs, and is for the resolver to complain about.
func (t *ttls) hear(message []byte) {
	var p dnsmessage.Parser
	if _, err := p.Start(message); err != nil || p.SkipAllQuestions() != nil {
		return
	}
	for {
		h, err := p.AnswerHeader()
		if err != nil || p.SkipAnswer() != nil {
			return
		}
		switch h.Type {
		case dnsmessage.TypeA, dnsmessage.TypeAAAA, dnsmessage.TypeCNAME:
			t.mu.Lock()
			if ttl := time.Duration(h.TTL) * time.Second; !t.found || ttl < t.ttl {
				t.found, t.ttl = true, ttl
			}
			t.mu.Unlock()
		}
	}
}

type listeningUDP struct {
	*net.UDPConn
	heard *ttls
}

func (c *listeningUDP) Read(p []byte) (int, error) {
	n, err := c.UDPConn.Read(p)
	c.heard.hear(p[:n])
	return n, err
}

// listeningTCP carries one message, with its length in two bytes before it, in pieces.
type listeningTCP struct {
	net.Conn
	heard *ttls
	got   []byte // at most what the length can say
}

func (c *listeningTCP) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if c.got = append(c.got, p[:n]...); len(c.got) >= 2 {
		if size := int(c.got[0])<<8 | int(c.got[1]); len(c.got) >= 2+size {
			c.heard.hear(c.got[2 : 2+size])
			c.got = c.got[:0]
		}
	}
	return n, err
}
