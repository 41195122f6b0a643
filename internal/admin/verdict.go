package admin

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
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
	short string // the headline, if it is the worst
}

const (
	silentAfter  = 5 * time.Second  // without an answer a member is worth a word
	digestsAgree = 30 * time.Second // after a change all decide by the new ring; members know of a death before the registry does
	heavyTimes   = 1.5              // its share of sessions, and a member is heavy
	namesShown   = 3
)

// judge tells what a picture means.
func judge(p *Picture, now time.Time) Verdict {
	var v Verdict
	say := func(level Level, short, text, hint string) {
		v.Findings = append(v.Findings, Finding{level, text, hint, short})
	}
	snap := p.Snapshot
	in := snap.Ring.Len()
	switch {
	case len(snap.Members) == 0:
		say(Alarm, "Nobody is there", "No member of service "+snap.Service+" is registered: every upgrade is answered with 503.",
			"Start one: selvedge backend --service "+snap.Service)
	case in == 0:
		say(Alarm, "The ring is empty", "Members are registered, and none is on the ring: every upgrade is answered with 503.", "")
	}
	if p.Process.NotReady != "" && in > 0 {
		say(Alarm, "Not ready", fmt.Sprintf("This %s is not ready: %s.", p.Process.Role, p.Process.NotReady), "")
	}
	if p.Stale {
		say(Worry, "The registry is away", "The registry cannot be read: the last members known stay in force.",
			"See whether Consul, or the registry's file, can be read from this host.")
	}
	if p.Refused != "" {
		say(Worry, "Members refuse this edge", "The members refuse this edge's token: they do not tell how they are, and pushes by way of this edge fail.",
			"Start this edge with SELVEDGE_TOKEN set to the push service's token.")
	}
	for _, g := range groupMembers(p, now) {
		if len(g.members) == 0 {
			continue
		}
		level := g.level
		if g.out && 2*in <= len(snap.Members) { // half of the members or more are gone
			level = Alarm
		}
		who, is := names(g.members), "is"
		if len(g.members) > 1 {
			is = "are"
		}
		short := who
		if len(g.members) > 2 {
			short = fmt.Sprintf("%d members", len(g.members))
		}
		fill := func(text, who string) string {
			return strings.NewReplacer("WHO", who, "IS", is, "COUNT", thousands(g.total)).Replace(text)
		}
		say(level, fill(g.short, short), fill(g.text, who), g.hint)
	}
	// While users are on their way, whoever they have not left yet is heavy for a while.
	moving := slices.ContainsFunc(v.Findings, func(f Finding) bool { return f.Level == Busy })
	if id, times := heaviest(p); times >= heavyTimes && !moving {
		say(Worry, id+" is heavy", fmt.Sprintf("%s holds %.1f times its share of the sessions.", id, times), "Users with very many sessions weigh on one member: find out whose they are.")
	}

	slices.SortStableFunc(v.Findings, func(a, b Finding) int { return int(b.Level) - int(a.Level) })
	v.Headline = "Healthy"
	if len(v.Findings) > 0 {
		worst := v.Findings[0]
		if v.Level, v.Headline = worst.Level, worst.short; v.Level == Busy {
			v.Headline = "Healthy; " + worst.short
		}
	}
	return v
}

// group is members of which the same is to be said. In its texts WHO stands for them, IS for is or are, COUNT for the total of what is counted.
type group struct {
	level   Level
	short   string
	text    string
	hint    string
	out     bool // they are out of the ring and should not be
	total   int
	members []string
}

func (g *group) add(id string, n int) { g.members, g.total = append(g.members, id), g.total+n }

// groupMembers puts each member where something is to be said of it.
func groupMembers(p *Picture, now time.Time) []group {
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
		kept: {level: Alarm, short: "Too many are critical", text: "WHO IS critical and kept in the ring: too many are for that to be believed.",
			hint: "See what they have in common: the network, Consul, a release."},
		critical: {level: Worry, out: true, short: "WHO IS down", text: "WHO IS critical, and out of the ring. The others have the users.", hint: "See its log, and its host."},
		damped: {level: Worry, out: true, short: "WHO IS unsteady", text: "WHO IS kept out of the ring for a while after too many returns.",
			hint: "Find out why it comes and goes."},
		avoided: {level: Worry, short: "WHO IS unreachable", text: "WHO IS not answering this edge. Users go to their next member.",
			hint: "The dial failures below say how it fails."},
		silent: {level: Worry, short: "WHO IS silent", text: "WHO IS giving no answer when asked for a status.", hint: "Does the process hang? Can its RPC port be reached from here?"},
		disagrees: {level: Worry, short: "Rings differ", text: "WHO IS deciding by another ring than this process.",
			hint: "Compare their registry and ring_secret_file: selvedge ring show --via each."},
		misplaced: {level: Busy, short: "users are moving", text: "A move is in progress: COUNT sessions at WHO are still to go home."},
		draining:  {level: Busy, short: "WHO IS draining", text: "WHO IS draining: COUNT sessions are still to go."},
		drained:   {level: Busy, short: "WHO IS drained", text: "WHO IS drained, and empty.", hint: "Stop the process, or restart it to have it back."},
		joining:   {level: Busy, short: "WHO IS joining", text: "WHO IS joining."},
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
	var total, shares float64
	for _, m := range p.Snapshot.Members {
		if f := p.Figures[m.ID]; f.Told && m.InRing() {
			total += float64(f.Sessions)
			shares += p.Snapshot.Ring.Share(m.ID)
		}
	}
	for _, m := range p.Snapshot.Members {
		f := p.Figures[m.ID]
		fair := p.Snapshot.Ring.Share(m.ID) / shares * total
		if !f.Told || !(fair > 0) {
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

// thousands writes n as 12,345.
func thousands(n int) string {
	text := strconv.Itoa(n)
	for at := len(text) - 3; at > 0; at -= 3 {
		text = text[:at] + "," + text[at:]
	}
	return text
}

func (v *Verdict) equal(other *Verdict) bool { return reflect.DeepEqual(v, other) }
