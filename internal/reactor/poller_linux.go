package reactor

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// newSystemPoller makes the poller that New uses.
func newSystemPoller() (poller, error) { return newEpollPoller() }

// epollPoller watches descriptors with one edge triggered epoll set. The user data of an entry is its slot and generation.
type epollPoller struct {
	epfd  int
	evfd  int // eventfd for wake. Edge triggered too: each write is an edge, so nobody has to read it
	batch [batchSize]unix.EpollEvent

	nudged bool // the last wait saw a wake

	// For park. The epoll set has another descriptor, so that a process has as many of them whether its loops are busy or not.
	spare int             // it; -1 while file has it, or none was left
	file  *os.File        // of spare, which Go's own poller watches; nil while the loop is busy
	raw   syscall.RawConn // file's
	until time.Time       // file's read deadline
}

// watched is what every descriptor is watched for, all the time: changing it would cost a system call each time. EPOLLRDHUP and
// EPOLLPRI only serve to tell Ending.
const watched = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLPRI | edgeTriggered

const edgeTriggered = 1 << 31 // unix.EPOLLET, which is negative in x/sys

func newEpollPoller() (*epollPoller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	evfd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		_ = unix.Close(epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p := &epollPoller{epfd: epfd, evfd: evfd, spare: -1}
	if err := p.reserve(); err != nil {
		p.close()
		return nil, err
	}
	if err := unix.SetNonblock(epfd, true); err != nil { // as os.NewFile wants it, in park
		p.close()
		return nil, os.NewSyscallError("fcntl", err)
	}
	if err := p.ctl(evfd, unix.EPOLLIN|edgeTriggered, noSlot, 0); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *epollPoller) ctl(fd int, events, slot, gen uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(slot), Pad: int32(gen)}
	if errno := p.rawCtl(unix.EPOLL_CTL_ADD, fd, &ev); errno != 0 {
		return os.NewSyscallError("epoll_ctl", errno)
	}
	return nil
}

func (p *epollPoller) add(fd int, slot, gen uint32) error { return p.ctl(fd, watched, slot, gen) }

// remove cannot fail for a descriptor that is registered and open, which its owner has promised.
func (p *epollPoller) remove(fd int, _ uint32) {
	_ = p.rawCtl(unix.EPOLL_CTL_DEL, fd, nil)
}

// rawCtl goes past the scheduler: the call never waits.
func (p *epollPoller) rawCtl(op, fd int, ev *unix.EpollEvent) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(ev)), 0, 0)
	return errno
}

// park is wait in Go's poller: the goroutine is parked, as one that reads from a connection, and no processor is kept.
func (p *epollPoller) park(into []event, timeout int) (n int, err error) {
	if err := p.bePolled(); err != nil { // no descriptor is left
		return p.wait(into, timeout)
	}
	if err := p.wakeAfter(timeout); err != nil {
		return 0, err
	}
	parkErr := p.raw.Read(func(uintptr) bool {
		n, err = p.wait(into, 0)
		return n > 0 || p.nudged || err != nil
	})
	if errors.Is(parkErr, os.ErrDeadlineExceeded) {
		parkErr = nil
	}
	return n, errors.Join(err, parkErr)
}

// bePolled has Go's poller watch the epoll set.
func (p *epollPoller) bePolled() error {
	if p.file != nil {
		return nil
	}
	err := p.reserve()
	if err != nil {
		return err
	}
	p.file, p.until, p.spare = os.NewFile(uintptr(p.spare), "epoll"), time.Time{}, -1
	if p.raw, err = p.file.SyscallConn(); err == nil {
		err = p.file.SetReadDeadline(time.Time{}) // fails where the poller cannot watch it
	}
	if err != nil {
		p.unpark()
	}
	return err
}

// unpark ends the watching by Go's poller: to add a descriptor to an epoll set that is itself watched has the kernel look for circles,
// under a lock of the whole machine.
func (p *epollPoller) unpark() {
	if p.file != nil {
		_ = p.file.Close()
		p.file, p.raw = nil, nil
		_ = p.reserve() // else when it is needed
	}
}

// reserve sees to spare.
func (p *epollPoller) reserve() (err error) {
	if p.spare < 0 {
		p.spare, err = unix.FcntlInt(uintptr(p.epfd), unix.F_DUPFD_CLOEXEC, 0)
	}
	return os.NewSyscallError("fcntl", err)
}

// wakeAfter sets the deadline of park. One that is a little early does no harm, and is often there already.
func (p *epollPoller) wakeAfter(timeout int) error {
	const early = 2 * time.Millisecond
	var until time.Time
	if timeout >= 0 {
		now := time.Now()
		until = now.Add(time.Duration(timeout) * time.Millisecond)
		if p.until.After(now) && !p.until.After(until) && until.Sub(p.until) < early {
			return nil
		}
	} else if p.until.IsZero() {
		return nil
	}
	p.until = until
	return p.file.SetReadDeadline(until)
}

func (p *epollPoller) rearm(uint32, Events) {}
func (p *epollPoller) edges() bool          { return true }

func (p *epollPoller) wait(into []event, timeout int) (int, error) {
	n, err := p.epollWait(min(len(into), batchSize), timeout)
	if err == unix.EINTR {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("epoll_pwait", err)
	}
	p.nudged = false
	kept := 0
	for i := range p.batch[:n] {
		if e := &p.batch[i]; uint32(e.Fd) == noSlot {
			p.nudged = true
		} else {
			into[kept] = event{slot: uint32(e.Fd), gen: uint32(e.Pad), ev: fromEpoll(e.Events)}
			kept++
		}
	}
	return kept, nil
}

// epollWait asks raw, without telling the scheduler, when the call cannot block.
func (p *epollPoller) epollWait(size, timeout int) (int, error) {
	call := syscall.Syscall6
	if timeout == 0 {
		call = syscall.RawSyscall6
	}
	n, _, errno := call(unix.SYS_EPOLL_PWAIT, uintptr(p.epfd), uintptr(unsafe.Pointer(&p.batch)), uintptr(size),
		uintptr(timeout), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func fromEpoll(e uint32) Events {
	var ev Events
	if e&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLPRI) != 0 {
		ev |= Readable
	}
	if e&unix.EPOLLOUT != 0 {
		ev |= Writable
	}
	if e&(unix.EPOLLRDHUP|unix.EPOLLPRI) != 0 {
		ev |= Ending
	}
	if e&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		ev |= Readable | Writable | Hangup | Ending
	}
	return ev
}

// wake can only fail when the counter is about to overflow, and then the eventfd is as ready as it can be.
func (p *epollPoller) wake() {
	one := [8]byte{0: 1, 7: 0}
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, uintptr(p.evfd), uintptr(unsafe.Pointer(&one)), 8)
}

func (p *epollPoller) close() {
	if p.file != nil {
		_ = p.file.Close()
	}
	if p.spare >= 0 {
		_ = unix.Close(p.spare)
	}
	_ = unix.Close(p.epfd)
	_ = unix.Close(p.evfd)
}
