package edge

import (
	"bufio"
	"bytes"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// lane is what the openings of one loop share. All of it belongs to the loop.
type lane struct {
	intake   *intake
	loop     *reactor.Loop
	openings map[*opening]struct{}

	// Openings that go on in a turn of the loop are few; those beyond wait, in the order in which they became ready.
	turn    uint64
	begun   int        // in turn
	due     []*opening // are let in
	waiting []*opening // have sent a head, or a part of it
	going   bool       // goOn has been posted
	resting bool       // nobody is taken out of waiting for a moment

	// For net/http's parsers.
	src bytes.Reader
	br  *bufio.Reader
}

func newLane(in *intake, loop *reactor.Loop) *lane {
	return &lane{intake: in, loop: loop, openings: make(map[*opening]struct{}), br: bufio.NewReader(nil)}
}

// open begins with a connection that has been accepted, and has been counted as an opening.
func (l *lane) open(fd int, peer netip.AddrPort) {
	o := &opening{lane: l, peer: peer, client: socket{fd: fd}, member: socket{fd: -1}}
	reg, err := l.loop.Register(fd, (*clientSide)(o))
	if err != nil {
		l.intake.edge.cannotAccept(err, 0)
		_ = unix.Close(fd)
		l.intake.openings.Done()
		return
	}
	o.client.reg = reg
	l.openings[o] = struct{}{}
	o.begin()
}

// openingsPerTurn bounds what a session waits for openings: one takes the loop some 100 us, a message 5, a turn by itself 1. With no bound a
// batch of the kernel's could hold 256 of them, and thousands could be ahead of a session's message.
const openingsPerTurn = 2

// admits tells whether o, which is ready, may go on in this turn. One that may not is called again.
func (l *lane) admits(o *opening) bool {
	if turn := l.loop.Turn(); l.turn != turn {
		l.turn, l.begun = turn, 0
	}
	queue, held := &l.due, false
	if o.stage == arriving {
		queue, held = &l.waiting, l.resting || l.intake.edge.pace.isCrowded()
	}
	if l.begun < openingsPerTurn && len(*queue) == 0 && !held {
		l.begun++
		return true
	}
	if !o.queued {
		o.queued = true
		*queue = append(*queue, o)
		l.goOnSoon()
	}
	return false
}

func (l *lane) goOnSoon() {
	if !l.going && (len(l.due) > 0 || len(l.waiting) > 0 && !l.resting) {
		l.going = true
		l.loop.Post(l.goOn)
	}
}

// shedPauses is after how many pauses a queue is a third of what it was: some 1.2 s, so that nobody waits for longer than a head may take.
const shedPauses = 512

// goOn lets those who have waited longest go on, first those who are let in. While more come than are let in most of the others are to be turned
// away, and that takes its time: turned away all at once they would also come again all at once.
func (l *lane) goOn() {
	l.going = false
	l.giveWay()
	left := openingsPerTurn
	for ; left > 0 && len(l.due) > 0; left-- {
		if o := first(&l.due); o.stage == pacing {
			o.dial()
		}
	}
	if !l.resting {
		if l.intake.edge.pace.isCrowded() {
			left += len(l.waiting) / shedPauses
			l.rest()
		}
		l.read(left)
	}
	l.goOnSoon()
}

// read reads the heads of the n who have waited longest.
func (l *lane) read(n int) {
	for ; n > 0 && len(l.waiting) > 0; n-- {
		if o := first(&l.waiting); o.stage == arriving {
			o.read()
		}
	}
}

func first(queue *[]*opening) *opening {
	o := (*queue)[0]
	(*queue)[0] = nil // the array outlives it
	if *queue = (*queue)[1:]; len(*queue) == 0 {
		*queue = nil
	}
	o.queued = false
	return o
}

func (l *lane) rest() {
	l.resting = true
	time.AfterFunc(crowdedPause, func() { // the loop's own timers are in step of 50 ms
		l.loop.Post(func() {
			l.resting = false
			l.goOnSoon()
		})
	})
}

// giveWay lets other processes have their turn when more come than can be served at once: in a storm it is the backends, and whoever else is
// on this host, that old sessions wait for. In calm it would only cost: 10 us for each upgrade.
func (l *lane) giveWay() {
	if len(l.waiting) > 4*openingsPerTurn || l.intake.edge.pace.isCrowded() {
		reactor.SchedYield()
	}
}

// forget takes out an opening that is over.
func (l *lane) forget(o *opening) {
	delete(l.openings, o)
	l.intake.openings.Done()
}

// release ends those that have not sent a byte, and hands those over that have sent a part of a head.
func (l *lane) release() {
	for o := range l.openings {
		if o.stage != arriving {
			continue
		}
		if _, err := reactor.Peek(o.client.fd, l.loop.Scratch()[:1]); err != nil {
			o.drop()
		} else {
			o.handOver()
		}
	}
}

// abort ends all that are left.
func (l *lane) abort() {
	for o := range l.openings {
		if o.attempt != nil {
			o.gone()
		} else {
			o.drop()
		}
	}
}

// request reads a request's head, which must be whole. What it returns holds none of it.
func (l *lane) request(head []byte) (*http.Request, error) {
	l.src.Reset(head)
	l.br.Reset(&l.src)
	return http.ReadRequest(l.br)
}

// answer is the same of an answer's head.
func (l *lane) answer(head []byte, r *http.Request) (*http.Response, error) {
	l.src.Reset(head)
	l.br.Reset(&l.src)
	return http.ReadResponse(l.br, r)
}
