// Package reactor runs many file descriptors on few goroutines.
//
// A [Reactor] owns a fixed number of loops. Each [Loop] is one goroutine that waits in the kernel, calls the [Handler] of
// every descriptor that became ready, runs tasks that others posted, and fires coarse timers. All state of a connection can
// then belong to its loop: the loop's callbacks never run at the same time as each other, so they need no lock.
//
//	r, err := reactor.New(0)
//	l := r.Loop()
//	fd, err := reactor.Detach(conn) // a descriptor of our own; conn is closed
//	l.Post(func() {                 // from here on the session lives on l
//		s.reg, err = l.Register(fd, s)
//	})
//
//	func (s *session) Ready(ev reactor.Events) {
//		n, err := reactor.Read(s.fd, s.loop.Scratch())
//		switch {
//		case err == reactor.ErrAgain:
//			s.reg.Drained(reactor.Readable) // wake me when there is more
//		...
//
// # Contract
//
// Events are edges. After Ready(Readable) a handler reads until [ErrAgain] (or the end, or an error), then says so with
// [Registration.Drained]; or it stops early to be fair to others and calls [Registration.Yield]. The same goes for
// Writable. A handler that does neither is not told again. Register itself delivers the state of the descriptor as the
// first event. A handler may be told of readiness that is no longer there, or that it did not ask for (an idle socket is
// always writable): reading and writing tell the truth.
//
// A handler must not block. No event arrives after [Registration.Unregister], not even one the kernel reported in the same
// batch, and not when the descriptor's number has been reused: events carry a generation.
//
// The descriptor stays the caller's: it must be non-blocking, is unregistered before it is closed, and is closed by the caller.
//
// What may be called from where: [Loop.Register], [Loop.Post], [Loop.AfterFunc] and [Timer.Stop] from any goroutine;
// everything on a [Registration], and [Loop.Scratch], only from the loop's callbacks (or after [Loop.Done]).
//
// # Cost and limits
//
// An idle registration costs 32 bytes in the loop and the 16 bytes of the Registration that the owner keeps; no goroutine,
// no buffer. The loop's slots are reused and never given back: 32 bytes times the highest number of registrations. A
// pending timer costs 64 bytes and its function. A loop has one 64 KiB scratch buffer.
//
// Linux uses epoll, edge triggered. Other unix systems use poll(2), which offers the same contract at a cost per wake-up
// that grows with the number of registrations; [NewPortable] makes that one on Linux too. See DESIGN.md for the event order
// and the waiting.
package reactor
