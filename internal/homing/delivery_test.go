package homing_test

import (
	"errors"
	"time"

	"github.com/selvedge/selvedge/internal/homing"
)

// payload is what travels with a question.
type payload struct {
	kind     payloadKind
	user     *user // nil: everybody
	id       string
	text     uint64 // stands for the payload's hash
	sender   string
	sequence uint64
}

type payloadKind int

const (
	pushing payloadKind = iota
	listing
	broadcasting
)

// inquiry is the context of a question: what it carries, and whom to tell of the outcome.
type inquiry struct {
	payload payload
	reply   func(result)
	hops    int
	asks    int
	asked   map[homing.Process]int
	failed  bool // the home did
}

// result is what a sender hears.
type result struct {
	sessions []string
	certain  bool
	silent   []homing.Process
	final    error
	hops     int
	asks     int
	at       *member
}

// inquire begins a question.
func (m *member) inquire(p payload, remaining time.Duration, forwarded bool, reply func(result)) {
	in := &inquiry{payload: p, reply: reply, hops: 1, asked: make(map[homing.Process]int)}
	q := &homing.Question{
		Everywhere: p.kind == broadcasting,
		Forwarded:  forwarded,
		Deadline:   m.clock() + homing.Instant(remaining),
		Context:    in,
	}
	if p.user != nil {
		q.User = p.user.hash
	}
	m.work(func(now homing.Instant) { m.node.Ask(now, q) })
	m.after(remaining, func() {
		if in.reply != nil && !m.isDead {
			m.w.tally.count("question expired")
			m.work(func(now homing.Instant) { m.node.Expire(now, q) })
		}
	})
}

func (in *inquiry) settled(m *member, q *homing.Question) {
	if in.reply == nil {
		m.w.judge.fail("%s settled a question twice", m.name)
		return
	}
	m.w.tally.settled(q)
	reply := in.reply
	in.reply = nil
	if errors.Is(q.Final, homing.ErrNotJoined) {
		m.w.tally.count("question to one who has not joined")
	}
	reply(result{q.Sessions, q.Certain, q.Silent, q.Final, in.hops, in.asks, m})
}

// answer is what comes back from a peer that was asked.
type answer struct {
	callee homing.Callee
	answer homing.Answer
	hops   int
	asks   int
}

func (m *member) ask(e homing.Ask) {
	in := e.Question.Context.(*inquiry)
	from := e.To.Process
	timeout := e.Timeout
	if timeout == 0 {
		timeout = e.Question.Deadline.Until(m.clock())
	}
	what := "Ask"
	if e.Forward {
		what = "Forward"
	}
	m.w.tally.ask(in, e)
	m.w.network.call(m.process, e.To.Addr, what, timeout, func(callee *process, reply func(any)) {
		if callee.member != nil {
			callee.member.asked(in.payload, e.Caller, e.Question.User, e.Forward, timeout, func(a answer) { reply(a) })
		}
	}, func(reply any, f homing.Failure, ok bool) {
		m.work(func(now homing.Instant) {
			if ok {
				a := reply.(answer)
				in.hops += max(a.hops-1, 0)
				in.asks += a.asks
				m.node.Answered(now, e.Question, from, a.callee, a.answer)
				return
			}
			in.failed = in.failed || e.Forward
			m.node.Unanswered(now, e.Question, from, f)
		})
	})
}

// asked answers a peer: for itself, or as the home.
func (m *member) asked(p payload, c homing.Caller, u homing.User, forward bool, remaining time.Duration, reply func(answer)) {
	var callee homing.Callee
	ok := false
	m.work(func(now homing.Instant) { callee, ok = m.node.Admit(now, c) })
	if !ok || m.isDead {
		return
	}
	m.w.tally.refusal(callee.Refusal)
	if callee.Refusal != homing.Accepted {
		reply(answer{callee: callee})
		return
	}
	if forward {
		m.inquire(p, remaining, true, func(r result) {
			if errors.Is(r.final, homing.ErrNotJoined) { // the connection breaks: it is not an answer
				return
			}
			reply(answer{callee, homing.Answer{Sessions: r.sessions, Complete: r.certain, Final: r.final}, r.hops, r.asks})
		})
		return
	}
	now := m.clock()
	openings, moving := m.node.Openings(u), m.node.Moving(now, u)
	m.look(p, u, now+homing.Instant(remaining), func(a homing.Answer) {
		if m.isClosed && m.node.IsFenced() {
			return
		}
		a.Openings, a.Moving = openings, moving
		reply(answer{callee: callee, answer: a})
	})
}

// look is what this process itself has to say.
func (m *member) look(p payload, u homing.User, until homing.Instant, done func(homing.Answer)) {
	if p.kind == listing {
		var a homing.Answer
		for _, s := range m.sessions {
			if s.user == p.user && s.isOpen() {
				a.Sessions = append(a.Sessions, s.id)
			}
		}
		done(a)
		return
	}
	key := homing.MessageKey{Message: p.id}
	if p.user != nil {
		key.User = p.user.name
		if !m.order.InTime(p.sender, p.user.name, p.sequence) {
			m.w.tally.count("final: too late")
			done(homing.Answer{Final: errTooLate})
			return
		}
	}
	rec, err := m.memory.Join(m.clock(), key, p.text, func() *record { return &record{asked: make(map[*session]bool)} })
	if err != nil {
		m.w.tally.count("final: " + err.Error())
		done(homing.Answer{Final: err})
		return
	}
	for _, s := range m.sessions {
		if (p.user == nil || s.user == p.user) && s.isOpen() && !rec.asked[s] {
			rec.asked[s] = true
			rec.undecided++
			s.deliver(p, func(took bool) { rec.decided(s, took) })
		}
	}
	rec.wait(m, until, done)
}

// record is what a holder knows of a message: who took it, and how many have still to.
type record struct {
	asked     map[*session]bool
	took      []string
	undecided int
	waiters   []func()
}

func (r *record) isBusy() bool { return r.undecided > 0 }

func (r *record) decided(s *session, took bool) {
	r.undecided--
	if took {
		r.took = append(r.took, s.id)
	}
	if r.undecided == 0 {
		for _, f := range r.waiters {
			f()
		}
		r.waiters = nil
	}
}

// wait calls done once all have decided, or when the time is over.
func (r *record) wait(m *member, until homing.Instant, done func(homing.Answer)) {
	isDone := false
	finish := func() {
		if isDone || m.isDead {
			return
		}
		isDone = true
		if r.undecided > 0 {
			m.w.tally.count("some session undecided")
		}
		done(homing.Answer{Sessions: append([]string(nil), r.took...), Undecided: r.undecided > 0})
	}
	if r.undecided == 0 {
		finish()
		return
	}
	r.waiters = append(r.waiters, finish)
	m.after(max(until.Until(m.clock())-50*time.Millisecond, 0), finish)
}
