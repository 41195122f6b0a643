package admin

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

// Level is how much a finding matters. The largest of all decides the colour of the page.
type Level int

const (
	Calm  Level = iota // nothing to do, nothing under way
	Busy               // under way by itself: a move, a drain, a join
	Worry              // the service works, and something of it does not
	Alarm              // users are turned away, or soon will be
)

// String returns the word that the page knows l by.
func (l Level) String() string { return [...]string{"calm", "busy", "worry", "alarm"}[l] }

// MarshalText makes JSON of it.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// Verdict is what a person should know first.
type Verdict struct {
	Level    Level     `json:"level"`
	Headline string    `json:"headline"`
	Findings []Finding `json:"findings,omitempty"` // the worst first
}

// Finding is one thing that is not as in calm.
type Finding struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Hint  string `json:"hint,omitempty"` // what to do
}

const (
	silentAfter  = 5 * time.Second // without an answer a member is worth a word
	digestsAgree = 5 * time.Second // after a change all members decide by the new ring
	heavyTimes   = 1.5             // its share of sessions, and a member is heavy
	namesShown   = 3
)

// judge tells what a picture means.
func judge(p *Picture, now time.Time) Verdict {
	var v Verdict
	say := func(level Level, hint, format string, args ...any) {
		v.Findings = append(v.Findings, Finding{level, fmt.Sprintf(format, args...), hint})
	}
	snap := p.Snapshot
	in := snap.Ring.Len()
	groups := sortMembersOut(p, now)
	outOf := func(level Level) Level { // half of the members or more are gone
		if 2*in <= len(snap.Members) {
			return Alarm
		}
		return level
	}

	switch {
	case len(snap.Members) == 0:
		say(Alarm, "Start one: selvedge backend --service "+snap.Service, "No member of service %s is registered: every upgrade is answered with 503.", snap.Service)
	case in == 0:
		say(Alarm, "", "None of %s is on the ring: every upgrade is answered with 503.", members(len(snap.Members)))
	}
	if p.Process.NotReady != "" && in > 0 {
		say(Alarm, "", "This %s is not ready: %s.", p.Process.Role, p.Process.NotReady)
	}
	if p.Stale {
		say(Worry, "See whether Consul, or the registry's file, can be read from this host.", "The registry cannot be read: the last members known stay in force.")
	}
	if p.Refused != "" {
		say(Worry, "Start this edge with SELVEDGE_TOKEN set to the push service's token.", "The members refuse this edge's token: they do not tell how they are, and pushes by way of this edge fail.")
	}
	for _, g := range groups {
		if len(g.members) > 0 {
			level := g.level
			if g.out {
				level = outOf(level)
			}
			say(level, g.hint, g.text, names(g.members), isAre(len(g.members)), g.total)
		}
	}
	if id, times := heaviest(p); times >= heavyTimes {
		say(Worry, "", "%s is heavy: it holds %.1f times its share of the sessions.", id, times)
	}

	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return int(b.Level) - int(a.Level) })
	if len(v.Findings) == 0 {
		v.Headline = "Healthy"
		return v
	}
	v.Level = v.Findings[0].Level
	switch {
	case len(snap.Members) == 0:
		v.Headline = "Nobody is there"
	case in == 0:
		v.Headline = "The ring is empty"
	case v.Level == Alarm:
		v.Headline = "In trouble"
	case v.Level == Worry:
		v.Headline = "Needs a look"
	default:
		v.Headline = "Healthy, and moving"
	}
	return v
}

// group is members of which the same is to be said: who, is or are, and the total of what is counted.
type group struct {
	level   Level
	text    string // %[1]s who, %[2]s is or are, %[3]d total
	hint    string
	out     bool // they are out of the ring and should not be
	total   int
	members []string
}

func (g *group) add(id string, n int) { g.members, g.total = append(g.members, id), g.total+n }

// sortMembersOut puts each member where something is to be said of it.
func sortMembersOut(p *Picture, now time.Time) []group {
	const (
		kept = iota
		critical
		damped
		avoided
		silent
		disagrees
		misplaced
		draining
		drained
		joining
	)
	groups := []group{
		kept: {level: Alarm, text: "%[1]s %[2]s critical and stay in the ring: too many are for that to be believed.",
			hint: "See what they have in common: the network, Consul, a release."},
		critical: {level: Worry, out: true, text: "%[1]s %[2]s critical, and out of the ring. The others have the users.", hint: "See its log, and its host."},
		damped:   {level: Worry, out: true, text: "%[1]s %[2]s kept out of the ring for a while: too many returns.", hint: "Find out why it comes and goes."},
		avoided: {level: Worry, text: "%[1]s %[2]s not answering this edge. Users go to their next member.",
			hint: "The dial failures below say how it fails."},
		silent: {level: Worry, text: "%[1]s %[2]s silent: this edge has asked for a status, and gets no answer.", hint: "Does the process hang? Is its RPC port reachable?"},
		disagrees: {level: Worry, text: "%[1]s %[2]s deciding by another ring than this process.",
			hint: "Compare their registry and ring_secret_file: selvedge ring show --via each."},
		misplaced: {level: Busy, text: "A move is in progress: %[3]d sessions at %[1]s are still to go home."},
		draining:  {level: Busy, text: "%[1]s %[2]s draining: %[3]d sessions still to go."},
		drained:   {level: Busy, text: "%[1]s %[2]s drained, and empty.", hint: "Stop the process, or restart it to have it back."},
		joining:   {level: Busy, text: "%[1]s %[2]s joining."},
	}
	for _, m := range p.Snapshot.Members {
		f := p.Figures[m.ID]
		state := m.State
		switch {
		case m.Override == discovery.Kept:
			groups[kept].add(m.ID, 0)
		case m.Health == discovery.Critical:
			groups[critical].add(m.ID, 0)
		case m.Override == discovery.Damped:
			groups[damped].add(m.ID, 0)
		case state == discovery.Joining:
			groups[joining].add(m.ID, 0)
		case state == discovery.Draining && f.Told && f.Sessions == 0:
			groups[drained].add(m.ID, 0)
		case state == discovery.Draining:
			groups[draining].add(m.ID, max(f.Sessions, f.Own))
		case f.Avoided:
			groups[avoided].add(m.ID, 0)
		case !f.Silent.IsZero() && now.Sub(f.Silent) > silentAfter:
			groups[silent].add(m.ID, 0)
		case !f.DigestSince.IsZero() && now.Sub(f.DigestSince) > digestsAgree:
			groups[disagrees].add(m.ID, 0)
		}
		if f.Told && f.Misplaced > 0 && state == discovery.Serving {
			groups[misplaced].add(m.ID, f.Misplaced)
		}
	}
	return groups
}

// heaviest is the member that holds most sessions for its share, and how many times what it should; 0 where that is but chance.
func heaviest(p *Picture) (id string, times float64) {
	var total int
	for _, m := range p.Snapshot.Members {
		if f := p.Figures[m.ID]; f.Told && m.InRing() {
			total += f.Sessions
		}
	}
	for _, m := range p.Snapshot.Members {
		f := p.Figures[m.ID]
		fair := p.Snapshot.Ring.Share(m.ID) * float64(total)
		if !f.Told || fair <= 0 {
			continue
		}
		over := float64(f.Sessions) - fair
		if t := float64(f.Sessions) / fair; over > 6*math.Sqrt(fair) && t > times { // chance makes some 3 with a hundred members
			id, times = m.ID, t
		}
	}
	return id, times
}

func names(ids []string) string {
	if len(ids) <= namesShown {
		if len(ids) < 2 {
			return strings.Join(ids, "")
		}
		return strings.Join(ids[:len(ids)-1], ", ") + " and " + ids[len(ids)-1]
	}
	return fmt.Sprintf("%s and %d more", strings.Join(ids[:namesShown-1], ", "), len(ids)-namesShown+1)
}

func isAre(n int) string {
	if n == 1 {
		return "is"
	}
	return "are"
}

func members(n int) string {
	if n == 1 {
		return "one member"
	}
	return fmt.Sprintf("%d members", n)
}

func (v *Verdict) equal(other *Verdict) bool { return reflect.DeepEqual(v, other) }
