package systemtest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/gobwas/ws"
)

// The judge of a chaos run is a pure function of three logs, all by one monotonic clock: what the senders were told, what the clients
// saw, and when which processes could not speak to each other. It holds the two against the promise of a push:
//
//	DELIVERED(n)  n sessions of the user took it, each once, and none that was open during the whole call was left out
//	OFFLINE       at some moment of the call no session of the user was open anywhere
//
// A client learns late. Its session is open for the server a little before it reads the 101, and closed a little before it reads the
// close frame; behind a cut, or at a process that is stopped, long before. So a session has two spans: in one it was certainly open,
// in the other it may have been. Only what holds for every server that could have written these logs is called a violation.

// logLag is how late a client may log what its server did: the way there, and a machine that is busy.
const logLag = 500 * time.Millisecond

// lateEnd is how long after a cut has healed TCP may need to tell the other side that a connection is gone: its next repetition.
const lateEnd = 15 * time.Second

// ghostsPerTry is how many other backends an edge may have tried before the one that a client got, or before it gave up. Each may
// have opened a session that no client ever saw.
const ghostsPerTry = 2

// push is what a sender asked and was told.
type push struct {
	id, user     string // the id is the message's text
	began, ended time.Time
	sessions     int    // told; 0 without failure is OFFLINE
	failure      string // "": completed; else the error's code and reason
	probe        bool   // sent to see when the user can be reached again, and not counted among the pushes of the even load
}

// session is one connection of a client, or its attempt to open one.
type session struct {
	user, device, id, backend, edge string    // id and backend are empty until the server has said them
	tried                           time.Time // the client began to connect
	opened                          time.Time // the 101 was read; zero: never
	ended                           time.Time // zero: still open when the log was taken
	cause                           cause
	code                            ws.StatusCode // with told
	got                             []receipt     // in the order of arrival
}

type receipt struct {
	id string
	at time.Time
}

// cause is how a session ended for its client.
type cause string

const (
	stillOpen cause = ""
	told      cause = "close frame"      // all that was sent before it has arrived
	broke     cause = "broke"            // reset or end without a close frame: its process was killed, or one on the way
	left      cause = "closed by client" // the client went, at the run's end
	notOpened cause = "never opened"     // no answer to the upgrade came
	refused   cause = "refused"          // the upgrade was answered with another status than 101
)

// silence is a time in which a backend could not speak to an edge: a cut between them, or with edge "" a stop of the backend.
type silence struct {
	backend, edge string
	from, to      time.Time
}

// verdict is what the judge found. The texts say what happened, one for each violation.
type verdict struct {
	delivered, offline int
	failed             map[string]int // pushes that ended in an error, which promises nothing, by code and reason
	inFlight           int            // sessions counted in a DELIVERED that broke with the bytes on their way
	ghosts             int            // sessions counted that no client ever saw: opened while an edge had given up waiting

	lost         []string // told DELIVERED or OFFLINE, and a session that was open throughout got nothing; or more were told than got it
	twice        []string // one session got it more than once
	wrongN       []string // fewer were told than were open throughout, or got it and were open at the end
	falseOffline []string // some session of the user was open at every moment
	late         []string // it came to a session that opened after the answer: somebody acted on a call that was long over
	strayed      []string // a session got what was never sent to its user
}

func (v *verdict) violations() []string {
	return slices.Concat(v.lost, v.twice, v.wrongN, v.falseOffline, v.late, v.strayed)
}

func (q silence) meets(from, to time.Time) bool { return span{q.from, q.to}.meets(from, to) }

// noticed is by when the backend knows which of its sessions ended during the silence.
func (q silence) noticed() time.Time {
	if q.edge == "" {
		return q.to.Add(logLag)
	}
	return q.to.Add(lateEnd)
}

// span is a time in which something held; both ends included.
type span struct{ from, to time.Time }

func (s span) meets(from, to time.Time) bool { return !s.to.Before(from) && !s.from.After(to) }

// holding is a session as the judge sees it.
type holding struct {
	*session
	certain  span           // certainly open; zero where there is no such time
	possible span           // perhaps open for its server
	opening  span           // an edge may have left sessions behind, which this client knows nothing of
	times    map[string]int // how often each push came
	newest   time.Time      // when the latest push that came was begun: its server was alive then
}

// judge compares the logs. now is when they were taken: nobody is asked or told anything later.
func judge(pushes []*push, sessions []*session, silences []silence, now time.Time) *verdict {
	v := &verdict{failed: make(map[string]int)}
	byID := make(map[string]*push, len(pushes))
	for _, p := range pushes {
		byID[p.id] = p
	}
	byUser := make(map[string][]*holding)
	for _, s := range sessions {
		h := &holding{session: s, times: make(map[string]int), newest: s.opened}
		for _, r := range s.got {
			p := byID[r.id]
			if p == nil || p.user != s.user {
				v.strayed = append(v.strayed, fmt.Sprintf("STRAYED: %s came to a session of %s", r.id, s.user))
				continue
			}
			if h.times[r.id]++; h.times[r.id] == 2 {
				v.twice = append(v.twice, fmt.Sprintf("TWICE: %s to %s came more than once to %s", p.id, p.user, h))
			}
			h.newest = latest(h.newest, p.began)
		}
		h.bound(silences, now)
		byUser[s.user] = append(byUser[s.user], h)
	}
	for _, p := range pushes {
		if p.failure != "" {
			v.failed[p.failure]++
			continue
		}
		if p.sessions > 0 {
			v.delivered++
		} else {
			v.offline++
		}
		v.completed(p, byUser[p.user])
	}
	return v
}

// completed judges a push that was told an outcome.
func (v *verdict) completed(p *push, held []*holding) {
	var got, breaking, ghosts int // what may have been counted at most
	var least int                 // what must have been counted: nobody can say that its server was gone before the answer
	for _, h := range held {
		throughout := h.certain.covers(p.began, p.ended)
		came := h.times[p.id] > 0
		if came && h.opened.Add(-logLag).After(p.ended) {
			v.late = append(v.late, fmt.Sprintf("LATE: %s came to %s", p, h))
			continue
		}
		if throughout || came && !h.certain.to.Before(p.ended) {
			least++
		}
		switch {
		case came:
			got++
		case h.mayHaveLost(p):
			breaking++
		case throughout && p.sessions > 0:
			v.lost = append(v.lost, fmt.Sprintf("LOST: %s left out %s", p, h))
			return
		}
		if h.opening.meets(p.began, p.ended) {
			ghosts += ghostsPerTry
		}
	}
	excess := p.sessions - got
	switch {
	case p.sessions == 0 && got == 0:
		if coverAll(held, p.began, p.ended) {
			v.falseOffline = append(v.falseOffline, fmt.Sprintf("FALSE OFFLINE: %s, of %v", p, held))
		}
	case p.sessions < least:
		v.wrongN = append(v.wrongN, fmt.Sprintf("WRONG N: %s; %d sessions were open, of %v", p, least, held))
	case excess > breaking+ghosts:
		v.lost = append(v.lost, fmt.Sprintf("LOST: %s; %d got it and %d broke, of %v", p, got, breaking, held))
	case excess > 0:
		v.inFlight += min(excess, breaking)
		v.ghosts += max(0, excess-breaking)
	}
}

// bound works out when the session was open.
func (h *holding) bound(silences []silence, now time.Time) {
	s := h.session
	end, sure := now, now
	if !s.ended.IsZero() {
		end, sure = s.ended, s.ended.Add(-logLag)
	}
	settled := end // when the upgrade was answered
	if !s.opened.IsZero() {
		settled = s.opened
	}
	h.possible = span{s.tried, end.Add(logLag)}
	h.opening = span{s.tried, settled.Add(logLag)}
	for _, q := range silences {
		if q.edge != "" && q.edge != s.edge {
			continue
		}
		if q.meets(s.tried, settled) { // at any backend that was tried
			h.opening.to = latest(h.opening.to, q.noticed())
		}
		// A session that broke before it said where it was may have been anywhere.
		if (s.backend == "" || s.backend == q.backend) && q.meets(s.tried, end) {
			h.possible.to = latest(h.possible.to, q.noticed()) // its server may learn of the end much later
			// So may its client: what comes after a silence may have been sent long before, but not before it was pushed.
			sure = earliest(sure, latest(q.from, h.newest))
		}
	}
	if !s.opened.IsZero() && !sure.Before(s.opened) {
		h.certain = span{s.opened, sure}
	}
}

// mayHaveLost tells whether the bytes of p may have been taken for h and gone with it when it broke. What is lost so is the end of the
// stream: a session that got anything sent after p was answered did not lose p.
func (h *holding) mayHaveLost(p *push) bool {
	return h.cause == broke && h.possible.meets(p.began, p.ended) && !h.newest.After(p.ended)
}

func (s span) covers(from, to time.Time) bool {
	return !s.from.IsZero() && !s.from.After(from) && !s.to.Before(to)
}

// coverAll tells whether some session was certainly open at every moment of that time.
func coverAll(held []*holding, from, to time.Time) bool {
	held = slices.SortedFunc(slices.Values(held), func(a, b *holding) int { return a.certain.from.Compare(b.certain.from) })
	for _, h := range held {
		if s := h.certain; !s.from.IsZero() && !s.from.After(from) {
			from = latest(from, s.to)
		}
	}
	return !from.Before(to)
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// logZero is where the texts of logs count time from.
var logZero = time.Now()

func at(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%.3fs", t.Sub(logZero).Seconds())
}

func (p *push) String() string {
	outcome := cmp.Or(p.failure, fmt.Sprintf("DELIVERED(%d)", p.sessions))
	if p.failure == "" && p.sessions == 0 {
		outcome = "OFFLINE"
	}
	return fmt.Sprintf("%s to %s from %s to %s, told %s", p.id, p.user, at(p.began), at(p.ended), outcome)
}

func (s *session) String() string {
	end := string(s.cause)
	if s.cause == told {
		end = fmt.Sprintf("%s %d", end, s.code)
	}
	return fmt.Sprintf("[%s/%s %s by %s: tried %s, open %s to %s %s]", s.user, s.device, cmp.Or(s.id, "no session"), s.edge,
		at(s.tried), at(s.opened), at(s.ended), end)
}
