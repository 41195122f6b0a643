//go:build unix

package tunnel

import (
	"io"

	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	// wakeBudget is how many bytes one flow moves per wake-up, give or take one buffer: some 30 us. Then the other connections of the
	// loop, and the other threads of its processor, have their turn. With 256 KiB a stream costs a third less, and short messages
	// beside it take longer; see DESIGN.md.
	wakeBudget = 32 << 10
	// staySplicing is how many bytes a flow must have moved in the wake-up that empties its source to begin the next one with
	// splice: less was a message, and messages are cheaper to copy.
	staySplicing = 32 << 10
)

// move moves the bytes of one flow until its source is empty, its destination is full or the budget is used up.
func (t *Tunnel) move(from side) {
	f, src, dst := &t.flows[from], &t.ends[from], &t.ends[from.other()]
	before := f.moved
	for taken := 0; t.state != closed; {
		if t.user != nil && !t.settle(from, dst) {
			break
		}
		if f.backlog != nil && !t.flush(from, dst) {
			break
		}
		if (f.ended || t.state == cutting) && !f.shut {
			t.passEnd(from)
			continue
		}
		if f.ended || !src.readable {
			break
		}
		if taken >= wakeBudget {
			src.reg.Yield()
			break
		}
		taken += t.take(from, src, dst, taken)
	}
	if t.state != closed && f.moved != before {
		t.shard.touch(t)
	}
	t.finishIfDone()
}

// flush writes the backlog. False: the destination is full, or broken.
func (t *Tunnel) flush(from side, dst *end) bool {
	f := &t.flows[from]
	for !f.backlog.empty() {
		if !dst.writable {
			return false
		}
		if tls := t.secure(from.other()); tls != nil {
			t.passSecure(from, tls, f.backlog.next())
			if t.state == closed {
				return false
			}
			continue
		}
		n, spliced, err := f.backlog.writeTo(int(dst.fd))
		if err != nil {
			t.refused(from, dst, err)
			return false
		}
		t.count(from, n, spliced)
	}
	t.shard.drop(f.backlog)
	f.backlog = nil
	return true
}

// take reads from the source once and passes on what it got. It returns how much that was.
func (t *Tunnel) take(from side, src, dst *end, taken int) int {
	switch f := &t.flows[from]; {
	case t.state == cutting:
		return t.discard(from, src)
	case t.user != nil:
		return t.copySecure(from, src, dst)
	case f.splicing || t.shard.relay.cfg.Engine == Splice:
		if b := t.shard.borrowPipe(); b != nil {
			return t.splice(from, src, dst, b, taken)
		}
	}
	return t.copy(from, src, dst)
}

// copy reads into the loop's buffer and writes on at once.
func (t *Tunnel) copy(from side, src, dst *end) int {
	f, buf := &t.flows[from], t.shard.loop.Scratch()
	n, err := reactor.Read(int(src.fd), buf)
	if err != nil {
		t.took(from, src, err)
		return 0
	}
	if n < len(buf) {
		if !src.ending {
			src.drained()
		}
	} else {
		f.splicing = t.shard.relay.cfg.Engine == Auto
	}
	t.pass(from, dst, buf[:n])
	return n
}

// pass writes on; only what the destination does not take is kept.
func (t *Tunnel) pass(from side, dst *end, rest []byte) {
	if tls := t.secure(from.other()); tls != nil {
		t.passSecure(from, tls, rest)
		return
	}
	for len(rest) > 0 {
		w, err := reactor.Write(int(dst.fd), rest)
		if err != nil {
			t.flows[from].backlog = t.shard.hold(rest)
			t.refused(from, dst, err)
			break
		}
		t.count(from, w, false)
		rest = rest[w:]
	}
}

// splice moves a pipeful into b, which move's next round writes on, and gives b back if there was nothing.
//
// splice(2) cannot get past a TCP urgent mark: it says EAGAIN there for ever, while read(2) steps over it. So when the
// events say that there may be one, nothing is only nothing if a read says so too.
func (t *Tunnel) splice(from side, src, dst *end, b *backlog, taken int) int {
	f := &t.flows[from]
	n, err := b.spliceFrom(int(src.fd))
	if err == nil {
		f.backlog = b
		return n
	}
	t.shard.drop(b)
	if taken > 0 { // else it had yielded, or waited for room, with nothing left behind
		f.splicing = taken >= staySplicing
	}
	if err == reactor.ErrAgain && src.ending {
		return t.copy(from, src, dst)
	}
	t.took(from, src, err)
	return 0
}

// discard reads what nobody will get any more, so that closing the socket does not reset it.
func (t *Tunnel) discard(from side, src *end) int {
	n, err := reactor.Read(int(src.fd), t.shard.loop.Scratch())
	if err != nil {
		t.took(from, src, err)
	}
	return n
}

// took deals with a read that brought no bytes.
func (t *Tunnel) took(from side, src *end, err error) {
	switch err {
	case reactor.ErrAgain:
		src.drained()
	case io.EOF:
		t.flows[from].ended = true
	default:
		t.fail(from, err)
	}
}

// refused deals with a write that took no bytes.
func (t *Tunnel) refused(from side, dst *end, err error) {
	if err == reactor.ErrAgain {
		dst.writable = false
		dst.reg.Drained(reactor.Writable)
		return
	}
	t.fail(from.other(), err)
}

// drained notes that there is nothing to read at present.
func (e *end) drained() {
	e.readable = false
	e.reg.Drained(reactor.Readable)
}

// count counts bytes that the destination's kernel has taken.
func (t *Tunnel) count(from side, n int, spliced bool) {
	t.flows[from].moved += int64(n)
	if spliced {
		t.shard.spliced[from].Add(uint64(n))
	} else {
		t.shard.copied[from].Add(uint64(n))
	}
}
