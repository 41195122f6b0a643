package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// book is a name service in memory.
type book struct {
	mu    sync.Mutex
	addr  string // "": look-ups fail
	ttl   time.Duration
	asked []time.Time
}

func (b *book) set(addr string, ttl time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addr, b.ttl = addr, ttl
}

func (b *book) lookup(context.Context, string) ([]netip.Addr, time.Duration, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, time.Now())
	if b.addr == "" {
		return nil, 0, errors.New("the server is away")
	}
	return []netip.Addr{netip.MustParseAddr(b.addr)}, b.ttl, nil
}

// TestResolved: a name is looked up again when its TTL has passed, and not before; the members' ring never changes by it; what cannot be looked
// up stays as it was.
func TestResolved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &book{addr: "192.0.2.1", ttl: 20 * time.Second}
		registry := NewMemory()
		registry.Put("chat", Member{ID: "b1", Addr: "b1.example:80", Weight: 1})
		registry.Put("chat", Member{ID: "b2", Addr: "192.0.2.7:80", RPCAddr: "b2.example:81", Weight: 1})
		src := Resolve(registry, testNop)
		src.lookup = b.lookup
		w := watch(t, src, "chat")
		want := func(when, addr, name string) {
			t.Helper()
			synctest.Wait()
			got, _ := w.last()
			if len(got) != 2 || got[0].Addr != addr || got[0].Name != name || got[1].Addr != "192.0.2.7:80" || got[1].RPCAddr != "b2.example:81" {
				t.Errorf("%s: %s", when, show(got))
			}
		}
		want("at first", "192.0.2.1:80", "b1.example")
		b.set("2001:db8::1", 0)
		time.Sleep(19 * time.Second)
		want("before the TTL has passed", "192.0.2.1:80", "b1.example")
		time.Sleep(time.Second)
		want("after it", "[2001:db8::1]:80", "b1.example")
		b.set("", 0)
		time.Sleep(untold)
		want("where nobody answers", "[2001:db8::1]:80", "b1.example")
		b.set("192.0.2.3", time.Hour)
		time.Sleep(src.retry)
		want("answered again", "192.0.2.3:80", "b1.example")
		if n := len(b.asked); n != 4 {
			t.Errorf("%d look-ups, want 4: %v", n, b.asked)
		}
		b.set("192.0.2.4", time.Hour)
		registry.Put("chat", Member{ID: "b1", Addr: "other.example:90", Weight: 1})
		want("another name", "192.0.2.4:90", "other.example")
		registry.Put("chat", Member{ID: "b1", Addr: "192.0.2.5:90", Weight: 1})
		want("no name", "192.0.2.5:90", "")
	})
}

// TestResolvedWithoutAnAnswer: at the start the names stay, and the edge is not kept waiting.
func TestResolvedWithoutAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := NewMemory()
		registry.Put("chat", Member{ID: "b1", Addr: "b1.example:80", Weight: 1})
		src := Resolve(registry, testNop)
		src.lookup = func(ctx context.Context, _ string) ([]netip.Addr, time.Duration, error) {
			<-ctx.Done()
			return nil, 0, ctx.Err()
		}
		w := watch(t, src, "chat")
		synctest.Wait()
		if _, n := w.last(); n != 0 {
			t.Error("a report before the look-ups")
		}
		time.Sleep(firstLook)
		synctest.Wait()
		if got, _ := w.last(); len(got) != 1 || got[0].Addr != "b1.example:80" || got[0].Name != "" {
			t.Errorf("after %v: %s", firstLook, show(got))
		}
	})
}

// TestChooseAddress: of several addresses the first that takes connections, and the one in use as long as it does.
func TestChooseAddress(t *testing.T) {
	addr := listen(t, func(net.Conn) {})
	_, text, _ := net.SplitHostPort(addr)
	var port uint16
	if _, err := fmt.Sscan(text, &port); err != nil {
		t.Fatal(err)
	}
	dead, live, never := netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("127.0.0.8")
	at := func(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, port) }
	tests := []struct {
		addrs         []netip.Addr
		current, want netip.AddrPort
	}{
		{[]netip.Addr{dead}, netip.AddrPort{}, at(dead)}, // the only one
		{[]netip.Addr{dead, live}, netip.AddrPort{}, at(live)},
		{[]netip.Addr{dead, live}, at(dead), at(live)},
		{[]netip.Addr{never, dead}, netip.AddrPort{}, at(never)},
		{[]netip.Addr{never, dead}, at(dead), at(dead)},
		{[]netip.Addr{live, dead}, at(never), at(live)},
	}
	for _, test := range tests {
		if got := chooseAddress(t.Context(), test.addrs, port, test.current); got != test.want {
			t.Errorf("%v with %v in use: %v, want %v", test.addrs, test.current, got, test.want)
		}
	}
}
