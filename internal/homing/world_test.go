package homing_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// world is one simulated deployment: everything that happens in it follows from its seed. Events run one by one in virtual time; what
// matters walks slices, never maps.
type world struct {
	seed   uint64
	kind   kind
	rand   *rand.Rand
	now    time.Duration
	serial uint64
	events eventHeap
	log    io.Writer // nil: none is kept

	network  network
	registry *registry
	members  []*member // every incarnation that ever was
	edges    []*edge
	users    []*user
	senders  []*sender
	judge    judge
	tally    tally

	incarnations uint64
	nextMember   int
	isQuiet      bool // the faults are over, and nobody leaves any more
	ending       time.Duration
}

// emptyWorld has nothing in it but a registry.
func emptyWorld(seed uint64, log io.Writer) *world {
	w := &world{seed: seed, rand: rand.New(rand.NewPCG(seed, 0x5e17ed9e)), log: log, tally: make(tally)}
	w.network = network{w: w, cuts: make(map[[2]string]time.Duration), listeners: make(map[string]*process), gone: make(map[string]bool)}
	w.judge.w = w
	w.registry = newRegistry(w)
	return w
}

// newWorld draws a world of the seed.
func newWorld(seed uint64, log io.Writer) *world {
	w := emptyWorld(seed, log)
	w.kind = drawKind(w.rand, seed)
	for i := range 12 {
		w.users = append(w.users, newUser(w, fmt.Sprintf("u%d", i)))
	}
	for range w.between(2, w.kind.members) {
		w.startMember(w.newMemberID(), "")
	}
	for i := range 2 {
		w.startEdge(fmt.Sprintf("e%d", i))
	}
	for i := range w.between(2, 3) {
		newSender(w, fmt.Sprintf("s%d", i))
	}
	for _, u := range w.users {
		for range 2 {
			newClient(u)
		}
	}
	return w
}

// run lets the world live through its faults, then 60 quiet seconds, then looks whether all is as it was.
func (w *world) run() {
	w.ending = time.Duration(w.between(15, w.kind.seconds)) * time.Second
	if w.kind.faults != nil {
		w.after(w.some(2*time.Second, 4*time.Second), w.fault)
	}
	w.runUntil(w.ending)
	w.endFaults()
	w.runUntil(w.ending + 60*time.Second)
	w.judge.quiet()
}

func (w *world) runUntil(end time.Duration) {
	for len(w.events) > 0 && w.events[0].at <= end && !w.judge.isLost() {
		e := w.events.pop()
		w.now = e.at
		e.do()
	}
	w.now = max(w.now, end)
}

// after runs do in so much virtual time.
func (w *world) after(d time.Duration, do func()) {
	w.serial++
	w.events.push(event{w.now + max(d, 0), w.serial, do})
}

func (w *world) logf(format string, args ...any) {
	if w.log != nil {
		fmt.Fprintf(w.log, "%9.3f  %s\n", w.now.Seconds(), fmt.Sprintf(format, args...))
	}
}

func (w *world) chance(percent int) bool { return w.rand.IntN(100) < percent }

// between draws a number, both ends included.
func (w *world) between(from, to int) int { return from + w.rand.IntN(max(to-from, 0)+1) }

// some draws a time.
func (w *world) some(from, to time.Duration) time.Duration {
	return from + time.Duration(w.rand.Int64N(int64(to-from)+1))
}

func one[T any](w *world, of ...T) T { return of[w.rand.IntN(len(of))] }

// event is something that happens at a time; of two at one time, the one that was planned first happens first.
type event struct {
	at     time.Duration
	serial uint64
	do     func()
}

func (e event) before(o event) bool { return e.at < o.at || e.at == o.at && e.serial < o.serial }

type eventHeap []event

func (h *eventHeap) push(e event) {
	s := append(*h, e)
	i := len(s) - 1
	for i > 0 && s[i].before(s[(i-1)/2]) {
		s[i], s[(i-1)/2] = s[(i-1)/2], s[i]
		i = (i - 1) / 2
	}
	*h = s
}

func (h *eventHeap) pop() event {
	s := *h
	first, last := s[0], len(s)-1
	s[0], s[last] = s[last], event{}
	s = s[:last]
	for i := 0; ; {
		least := i
		for _, child := range [2]int{2*i + 1, 2*i + 2} {
			if child < len(s) && s[child].before(s[least]) {
				least = child
			}
		}
		if least == i {
			break
		}
		s[i], s[least] = s[least], s[i]
		i = least
	}
	*h = s
	return first
}

// process is something that runs, hangs and dies, with a clock of its own that goes on while it hangs.
type process struct {
	w       *world
	name    string
	place   string // on the network
	offset  time.Duration
	rate    float64
	isDead  bool
	isHung  bool
	backlog []func() // what came while it hung
	inbound []*inbound
	member  *member // that it runs; nil for others
}

func (w *world) newProcess(name, place string) *process {
	return &process{w: w, name: name, place: place, offset: w.some(time.Hour, 2*time.Hour), rate: 0.99 + 0.02*w.rand.Float64()}
}

func (p *process) clock() homing.Instant {
	return homing.Instant(p.offset + time.Duration(float64(p.w.now)*p.rate))
}

// do runs f in the process: now, or once it wakes, or never if it is dead.
func (p *process) do(f func()) {
	switch {
	case p.isDead:
	case p.isHung:
		p.backlog = append(p.backlog, f)
	default:
		f()
	}
}

// after runs f once so much time has gone by on the process's clock.
func (p *process) after(d time.Duration, f func()) {
	p.w.after(time.Duration(float64(d)/p.rate), func() { p.do(f) })
}

// every runs f again and again while the process lives and does not hang.
func (p *process) every(d time.Duration, f func()) {
	p.w.after(time.Duration(float64(d)/p.rate), func() {
		if p.isDead {
			return
		}
		if !p.isHung {
			f()
		}
		p.every(d, f)
	})
}

func (p *process) hang() {
	p.isHung = true
	p.w.logf("%s hangs", p.name)
}

func (p *process) wake() {
	if p.isDead || !p.isHung {
		return
	}
	p.isHung = false
	p.w.logf("%s wakes, %d events waited", p.name, len(p.backlog))
	for len(p.backlog) > 0 && !p.isDead && !p.isHung {
		f := p.backlog[0]
		p.backlog = p.backlog[1:]
		f()
	}
}

// end stops the process for good; whoever waits for its answer sees the connection break.
func (p *process) end() {
	p.isDead = true
	p.backlog = nil
	if p.w.network.listeners[p.place] == p {
		delete(p.w.network.listeners, p.place)
	}
	for _, in := range p.inbound {
		in.reset()
	}
	p.inbound = nil
}
