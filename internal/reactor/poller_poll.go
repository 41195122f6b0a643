//go:build unix

package reactor

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// pollPoller makes edges out of poll(2), which only knows levels: a direction that has been reported is not asked for again
// until rearm says that it was seen exhausted. Every wait hands the kernel all descriptors: good for a laptop, not for a
// front door.
type pollPoller struct {
	mu      *sync.Mutex // the loop's; guards what follows
	entries []pollEntry // dense; removal moves the last one into the gap
	index   []int32     // slot -> position in entries
	wakeR   int
	wakeW   int

	set    []unix.PollFd // of the loop's goroutine: the wake-up pipe, then one for each of polled
	polled []event       // whom set is about; ev is what was asked for
}

type pollEntry struct {
	slot, gen uint32
	fd        int32
	armed     Events // Readable, Writable, Hangup: what has not been reported since it was last rearmed
}

func newPollPoller() (poller, error) {
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		return nil, os.NewSyscallError("pipe", err)
	}
	for _, fd := range p {
		unix.CloseOnExec(fd)
		if err := unix.SetNonblock(fd, true); err != nil {
			_ = unix.Close(p[0])
			_ = unix.Close(p[1])
			return nil, os.NewSyscallError("fcntl", err)
		}
	}
	return &pollPoller{wakeR: p[0], wakeW: p[1]}, nil
}

func (p *pollPoller) bind(mu *sync.Mutex) { p.mu = mu }

func (p *pollPoller) edges() bool { return false }

func (p *pollPoller) add(fd int, slot, gen uint32) error {
	for int(slot) >= len(p.index) {
		p.index = append(p.index, -1)
	}
	p.index[slot] = int32(len(p.entries))
	p.entries = append(p.entries, pollEntry{slot: slot, gen: gen, fd: int32(fd), armed: Readable | Writable | Hangup})
	return nil
}

func (p *pollPoller) remove(_ int, slot uint32) {
	i, last := p.index[slot], len(p.entries)-1
	p.entries[i] = p.entries[last]
	p.index[p.entries[i].slot] = i
	p.entries = p.entries[:last]
	p.index[slot] = -1
}

func (p *pollPoller) rearm(slot uint32, ev Events) {
	p.entries[p.index[slot]].armed |= ev & (Readable | Writable)
}

func (p *pollPoller) wait(into []event, timeout int) (int, error) {
	p.collect()
	n, err := unix.Poll(p.set, timeout)
	if err == unix.EINTR || n == 0 {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("poll", err)
	}
	if p.set[0].Revents != 0 {
		var buf [64]byte
		for { // empty it: levels again
			if n, err := unix.Read(p.wakeR, buf[:]); n < len(buf) || err != nil {
				break
			}
		}
	}
	return p.report(into), nil
}

// collect makes the kernel's argument of everything that is armed.
func (p *pollPoller) collect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.set = append(p.set[:0], unix.PollFd{Fd: int32(p.wakeR), Events: unix.POLLIN})
	p.polled = p.polled[:0]
	for _, e := range p.entries {
		if e.armed == 0 {
			continue
		}
		var want int16
		if e.armed&Readable != 0 {
			want |= unix.POLLIN
		}
		if e.armed&Writable != 0 {
			want |= unix.POLLOUT
		}
		p.set = append(p.set, unix.PollFd{Fd: e.fd, Events: want})
		p.polled = append(p.polled, event{slot: e.slot, gen: e.gen})
	}
}

// report turns what poll found into edges and disarms it. What does not fit in into stays armed and is found again by the
// next wait.
func (p *pollPoller) report(into []event) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i, who := range p.polled {
		got := p.set[i+1].Revents
		if got == 0 {
			continue
		}
		at := p.index[who.slot]
		if at < 0 || p.entries[at].gen != who.gen {
			continue // gone since collect
		}
		if n == len(into) {
			break
		}
		e := &p.entries[at]
		who.ev = fromPoll(got) & e.armed
		if who.ev == 0 {
			continue
		}
		if who.ev&Hangup != 0 {
			who.ev |= Readable | Writable
		}
		e.armed &^= who.ev
		if who.ev&Readable != 0 {
			who.ev |= Ending // POLLRDHUP is not known everywhere: let handlers read on
		}
		into[n] = who
		n++
	}
	return n
}

func fromPoll(got int16) Events {
	var ev Events
	if got&unix.POLLIN != 0 {
		ev |= Readable
	}
	if got&unix.POLLOUT != 0 {
		ev |= Writable
	}
	if got&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0 {
		ev |= Readable | Writable | Hangup
	}
	return ev
}

// wake can only fail when the pipe is full, and then it is as readable as it can be.
func (p *pollPoller) wake() { _, _ = unix.Write(p.wakeW, []byte{0}) }

func (p *pollPoller) close() {
	_ = unix.Close(p.wakeR)
	_ = unix.Close(p.wakeW)
}
