package discovery

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// lookupsAtOnce bounds the look-ups of one service that are under way.
	lookupsAtOnce = 32
	// lookupTime bounds one look-up, and how long the first report waits for those of all names.
	lookupTime = 5 * time.Second
	firstLook  = 2 * time.Second
	// untold is how long addresses are used of which nobody has said how long they may be: those of the hosts file.
	untold = 30 * time.Second
	// tryAddress is how long one of several addresses has to take a connection.
	tryAddress = time.Second
)

// Resolved is a source that looks host names up, and again at their TTL: a member has its Addr with a number in place of the name, which stands in
// Name. A name that cannot be looked up keeps its last address; before the first, the name. RPCAddr stays as it is.
type Resolved struct {
	src Source
	log *zap.Logger

	// Tests change these.
	lookup func(ctx context.Context, host string) ([]netip.Addr, time.Duration, error)
	retry  time.Duration // after a look-up that failed
}

// Resolve returns src with its members' names looked up. Members without names pass as they are.
func Resolve(src Source, log *zap.Logger) *Resolved {
	if log == nil {
		log = zap.NewNop()
	}
	return &Resolved{src: src, log: log, retry: 5 * time.Second,
		lookup: func(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
			return lookup(ctx, host, nil)
		}}
}

func (r *Resolved) trouble(service string) trouble { return troubleOf(r.src, service) }

// hostName returns the name in addr that must be looked up, and the port; ok is false where there is none.
func hostName(addr string) (host string, port uint16, ok bool) {
	host, number, err := splitAddr(addr)
	if err != nil || host == "" {
		return "", 0, false
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "", 0, false
	}
	return host, uint16(number), true //nolint:gosec // splitAddr takes no port above 65535
}

// Watch reports the source's members with their addresses. The first report waits up to two seconds for them.
func (r *Resolved) Watch(ctx context.Context, service string, update func([]Member)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	reports := make(chan []Member)
	ended := make(chan error, 1)
	wg.Go(func() {
		ended <- r.src.Watch(ctx, service, func(members []Member) {
			select {
			case reports <- members:
			case <-ctx.Done():
			}
		})
	})
	w := names{update: update, log: r.log.With(zap.String("service", service)), known: make(map[string]*name)}
	found := make(chan foundAddress)
	places := make(chan struct{}, lookupsAtOnce)
	w.follow = func(n *name) {
		var following context.Context
		following, n.stop = context.WithCancel(ctx)
		wg.Go(func() { r.follow(following, n, w.log, places, found) })
	}
	var patience <-chan time.Time
	for {
		select {
		case members := <-reports:
			if patience == nil {
				timer := time.NewTimer(firstLook)
				defer timer.Stop() //nolint:gocritic // once: patience is set
				patience = timer.C
			}
			w.take(members)
		case f := <-found:
			w.note(f)
		case <-patience:
			w.begun = true
			w.report()
		case err := <-ended:
			return err
		}
	}
}

// follow looks one name up again and again until ctx ends.
func (r *Resolved) follow(ctx context.Context, n *name, log *zap.Logger, places chan struct{}, found chan<- foundAddress) {
	log = log.With(zap.String("member", n.id), zap.String("name", n.host))
	var current netip.AddrPort
	failing := false
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return
		}
		limited, cancel := context.WithTimeout(ctx, lookupTime)
		addrs, ttl, err := r.lookup(limited, n.host)
		cancel()
		if err == nil && len(addrs) > 0 {
			current = chooseAddress(ctx, addrs, n.port, current)
		}
		<-places
		if ctx.Err() != nil {
			return
		}
		if err != nil && !failing {
			log.Warn("a member's name cannot be looked up; its last address stays in force", zap.Error(err))
		}
		if err == nil && failing {
			log.Info("a member's name can be looked up again", zap.Stringer("addr", current))
		}
		if failing = err != nil; failing {
			ttl = r.retry
		} else if ttl == 0 {
			ttl = untold
		}
		select {
		case found <- foundAddress{n, current}:
		case <-ctx.Done():
			return
		}
		if !sleep(ctx, ttl) {
			return
		}
	}
}

// chooseAddress decides which of a name's addresses is the member: the one in use if it still is one and takes connections, else the first that does, in
// their order. One address is not tried: that is for health checks and for those who connect.
func chooseAddress(ctx context.Context, addrs []netip.Addr, port uint16, current netip.AddrPort) netip.AddrPort {
	candidates := make([]netip.AddrPort, 0, len(addrs))
	for _, a := range addrs {
		if p := netip.AddrPortFrom(a, port); p == current {
			candidates = slices.Insert(candidates, 0, p)
		} else {
			candidates = append(candidates, p)
		}
	}
	if len(candidates) == 1 {
		return candidates[0]
	}
	for _, p := range candidates {
		d := net.Dialer{Timeout: tryAddress}
		if conn, err := d.DialContext(ctx, "tcp", p.String()); err == nil {
			conn.Close()
			return p
		}
	}
	return candidates[0]
}

// names is what a watch of a [Resolved] source knows. It belongs to the goroutine that watches.
type names struct {
	log    *zap.Logger
	update func([]Member)
	follow func(*name) // begins to look up

	listed []Member // by the source
	heard  bool     // the source has said something
	known  map[string]*name
	begun  bool // the first report was made, or must not wait any longer
}

// name is a member's host name.
type name struct {
	id, host string
	port     uint16
	stop     context.CancelFunc
	asked    bool           // a look-up has ended
	addr     netip.AddrPort // not valid: none was found yet
}

type foundAddress struct {
	of   *name
	addr netip.AddrPort // not valid: still none
}

func (w *names) take(members []Member) {
	w.listed, w.heard = members, true
	present := make(map[string]bool, len(members))
	for _, m := range members {
		host, port, ok := hostName(m.Addr)
		if !ok {
			continue
		}
		present[m.ID] = true
		old := w.known[m.ID]
		if old != nil && old.host == host && old.port == port {
			continue
		}
		if old != nil {
			old.stop()
		}
		n := &name{id: m.ID, host: host, port: port}
		w.known[m.ID] = n
		w.follow(n)
	}
	for id, n := range w.known {
		if !present[id] {
			n.stop()
			delete(w.known, id)
		}
	}
	w.report()
}

func (w *names) note(f foundAddress) {
	n := f.of
	if w.known[n.id] != n {
		return // it is gone, or has another name
	}
	changed := n.addr != f.addr
	if changed && n.addr.IsValid() {
		w.log.Info("a member's name has another address", zap.String("member", n.id), zap.String("name", n.host),
			zap.Stringer("from", n.addr), zap.Stringer("to", f.addr))
	}
	first := !n.asked
	n.asked, n.addr = true, f.addr
	if changed || first {
		w.report()
	}
}

// report tells the members, once every name has been looked up.
func (w *names) report() {
	if !w.heard {
		return
	}
	if !w.begun {
		for _, n := range w.known {
			if !n.asked {
				return
			}
		}
		w.begun = true
	}
	members := slices.Clone(w.listed)
	for i := range members {
		if n := w.known[members[i].ID]; n != nil && n.addr.IsValid() {
			members[i].Addr, members[i].Name = net.JoinHostPort(n.addr.Addr().String(), strconv.Itoa(int(n.port))), n.host
		}
	}
	w.update(members)
}
