//go:build unix

package tunnel

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// ErrClosed is returned by Join after Close: both connections have been closed.
var ErrClosed = errors.New("tunnel: relay closed")

// End is one side of a tunnel.
type End struct {
	Conn net.Conn

	// Early are bytes already read from Conn and owed to the other side, such as what a client sent right after its
	// upgrade. Join takes the slice: it must not be changed any more. It is let go when it has been written.
	Early []byte
}

// Summary is what there is to say of a tunnel that has ended.
type Summary struct {
	Reason Reason

	// Err is the error behind the reason, nil for an orderly end. It is for logs.
	Err error

	// ToBackend and ToClient are the bytes handed to the kernel in either direction.
	ToBackend, ToClient int64
}

// Counters are bytes moved since the relay was made, by direction and engine.
type Counters struct {
	ToBackendCopied, ToBackendSpliced uint64
	ToClientCopied, ToClientSpliced   uint64
}

// Relay owns a set of tunnels. Its methods are safe from any goroutine; Close must not be called from onClose.
type Relay struct {
	cfg    Config
	shards []*shard
	next   atomic.Uint32
	pipes  atomic.Int32     // open pipes of all shards, at most MaxPipes
	live   atomic.Int64     // tunnels that have not called onClose
	copied [2]atomic.Uint64 // bytes moved by goroutines, by the side they came from

	mu     sync.Mutex
	closed bool
	pumped map[*Tunnel]struct{} // those with goroutines
	empty  *sync.Cond           // live is 0
}

// NewRelay makes a relay on cfg.Reactor. An error says which field of cfg is wrong.
func NewRelay(cfg Config) (*Relay, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Relay{cfg: cfg, pumped: make(map[*Tunnel]struct{})}
	r.empty = sync.NewCond(&r.mu)
	for _, l := range cfg.Reactor.Loops() {
		r.shards = append(r.shards, newShard(r, l))
	}
	return r, nil
}

// Join moves bytes between the two connections from now on. It takes both of them, and with an error both have been closed
// and onClose is not called: [ErrClosed], or the kernel's when descriptors run out. Two connections with descriptors need
// no goroutine, and neither do those of TLS on a [Wire]; others need two. onClose may be nil.
func (r *Relay) Join(client, backend End, onClose func(Summary)) (*Tunnel, error) {
	t, err := r.join(client, backend, onClose)
	if err != nil {
		_ = client.Conn.Close()
		_ = backend.Conn.Close()
		return nil, err
	}
	return t, nil
}

func (r *Relay) join(client, backend End, onClose func(Summary)) (*Tunnel, error) {
	t := &Tunnel{onClose: onClose}
	secureClient, clientSocket := socketOf(client.Conn)
	secureBackend, backendSocket := socketOf(backend.Conn)
	if !hasDescriptor(clientSocket) || !hasDescriptor(backendSocket) {
		p := newPump(r, t, client, backend)
		if err := r.enter(t, p); err != nil {
			return nil, err
		}
		p.start()
		return t, nil
	}
	if err := r.enter(t, nil); err != nil {
		return nil, err
	}
	clientFD, err := reactor.Detach(clientSocket)
	if err != nil {
		r.leave(t)
		return nil, fmt.Errorf("tunnel: client: %w", err)
	}
	backendFD, err := reactor.Detach(backendSocket)
	if err != nil {
		_ = unix.Close(clientFD)
		r.leave(t)
		return nil, fmt.Errorf("tunnel: backend: %w", err)
	}
	setOptions(clientFD, &r.cfg)
	setOptions(backendFD, &r.cfg)
	t.init(clientFD, backendFD, client.Early, backend.Early)
	t.under(secureClient, secureBackend)
	t.shard = r.shards[int(r.next.Add(1)-1)%len(r.shards)]
	t.shard.admit(t)
	return t, nil
}

// socketOf returns the TLS that a tunnel can take the socket from under, nil for none, and what has the socket.
func socketOf(c net.Conn) (*secure, net.Conn) {
	if s := onWire(c); s != nil {
		return s, s.wire.Conn
	}
	return nil, c
}

func hasDescriptor(c net.Conn) bool {
	_, ok := c.(syscall.Conn)
	return ok
}

// enter counts t in, unless the relay is closed.
func (r *Relay) enter(t *Tunnel, p *pump) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return ErrClosed
	}
	if p != nil {
		t.user = &userland{pump: p}
		r.pumped[t] = struct{}{}
	}
	r.live.Add(1)
	return nil
}

// leave counts t out. The lock is only needed by those that wait in Close, and by the set of tunnels with goroutines.
func (r *Relay) leave(t *Tunnel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pumped, t)
	if r.live.Add(-1) == 0 {
		r.empty.Broadcast()
	}
}

// Len is the number of tunnels that have not ended.
func (r *Relay) Len() int { return int(r.live.Load()) }

// Counters returns the bytes moved so far, those of live tunnels included.
func (r *Relay) Counters() Counters {
	c := Counters{ToBackendCopied: r.copied[client].Load(), ToClientCopied: r.copied[backend].Load()}
	for _, s := range r.shards {
		c.ToBackendCopied += s.copied[client].Load()
		c.ToBackendSpliced += s.spliced[client].Load()
		c.ToClientCopied += s.copied[backend].Load()
		c.ToClientSpliced += s.spliced[backend].Load()
	}
	return c
}

// Close cuts all tunnels, as [Tunnel.Close] with Shutdown does, and returns when the last has called onClose, 2 s later at
// most. Join fails from now on. Calling it again waits again.
func (r *Relay) Close() error {
	r.mu.Lock()
	r.closed = true
	pumped := make([]*Tunnel, 0, len(r.pumped))
	for t := range r.pumped {
		pumped = append(pumped, t)
	}
	r.mu.Unlock()

	for _, t := range pumped {
		t.Close(Shutdown)
	}
	for _, s := range r.shards {
		s.close()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.live.Load() > 0 {
		r.empty.Wait()
	}
	return nil
}
