package admin

import (
	"math"
	"time"
)

// frame is what a page is told at once: all at first, later what has changed. Its JSON is what page.js reads.
type frame struct {
	Now      int64                 `json:"now"` // this process's clock, in Unix milliseconds, as all times here
	First    bool                  `json:"first,omitempty"`
	Service  string                `json:"service,omitempty"`
	Services []serviceRow          `json:"services,omitempty"`
	Process  *Process              `json:"process,omitempty"`
	Verdict  *Verdict              `json:"verdict,omitempty"`
	Ring     *ringRow              `json:"ring,omitempty"`
	Totals   *Totals               `json:"totals,omitempty"`
	Members  map[string]memberRow  `json:"members,omitempty"`
	Gone     []string              `json:"gone,omitempty"`
	Live     map[string]liveRow    `json:"live,omitempty"`
	Failures map[string]failureRow `json:"failures,omitempty"`
	Changes  []changeRow           `json:"changes,omitempty"`  // oldest first
	Closures []closureRow          `json:"closures,omitempty"` // the same
}

type serviceRow struct {
	Name  string `json:"name"`
	Level Level  `json:"level"`
}

type ringRow struct {
	Digest string `json:"digest"`
	Size   int    `json:"size"`
	Known  int    `json:"known"`
}

// memberRow is what seldom changes of a member.
type memberRow struct {
	Addr   string `json:"addr"`
	RPC    string `json:"rpc,omitempty"`
	State  string `json:"state"`
	Health string `json:"health"`
	Weight int    `json:"weight"`
	Out    string `json:"out,omitempty"`  // why it is not in the ring; "": it is
	Note   string `json:"note,omitempty"` // kept, avoided or silent
	Told   bool   `json:"told,omitempty"`
	Up     int64  `json:"up,omitempty"` // since when it runs
}

// liveRow is what changes all the time: share of users, sessions through this process, sessions in all, pushes per second, sessions to be
// moved, bytes that wait for slow clients, moves since its start.
type liveRow [7]float64

type failureRow struct {
	Count uint64 `json:"count"`
	At    int64  `json:"at"`
	Error string `json:"error"`
}

type changeRow struct {
	Number uint64 `json:"n"`
	At     int64  `json:"at"`
	Change
}

type closureRow struct {
	Number uint64 `json:"n"`
	At     int64  `json:"at"`
	Closure
}

const (
	closuresAtFirst = 40
	closuresAtOnce  = 12 // of those between two frames the newest
)

// teller tells one page what it does not know yet.
type teller struct {
	began    bool
	services []serviceRow
	process  Process
	verdict  Verdict
	ring     ringRow
	totals   Totals
	members  map[string]memberRow
	live     map[string]liveRow
	failures map[string]failureRow
	change   uint64 // number of the last that was told
	closure  uint64
}

func newTeller() *teller {
	return &teller{members: make(map[string]memberRow), live: make(map[string]liveRow), failures: make(map[string]failureRow)}
}

// tell makes the next frame of a picture.
func (t *teller) tell(p *Picture, services []serviceRow, now time.Time) *frame {
	f := &frame{Now: now.UnixMilli(), First: !t.began}
	if f.First {
		f.Service = p.Snapshot.Service
	}
	if !equalRows(t.services, services) {
		t.services, f.Services = services, services
	}
	if f.First || t.process != p.Process {
		t.process, f.Process = p.Process, &p.Process
	}
	if verdict := judge(p, now); f.First || !verdict.equal(&t.verdict) {
		t.verdict, f.Verdict = verdict, &verdict
	}
	if ring := (ringRow{p.Snapshot.Ring.Digest(), p.Snapshot.Ring.Len(), len(p.Snapshot.Members)}); f.First || ring != t.ring {
		t.ring, f.Ring = ring, &ring
	}
	if f.First || t.totals != p.Totals {
		t.totals, f.Totals = p.Totals, &p.Totals
	}
	t.tellMembers(f, p, now)
	t.tellHappenings(f, p)
	t.began = true
	return f
}

func (t *teller) tellMembers(f *frame, p *Picture, now time.Time) {
	f.Members, f.Live, f.Failures = make(map[string]memberRow), make(map[string]liveRow), make(map[string]failureRow)
	for _, m := range p.Snapshot.Members {
		figures := p.Figures[m.ID]
		row := memberRow{Addr: m.Addr, RPC: m.RPCAddr, State: m.State.String(), Health: m.Health.String(), Weight: m.Weight, Told: figures.Told}
		if !m.InRing() {
			row.Out = whyOut(p.Snapshot, m.ID)
		}
		switch {
		case m.Override.String() != "":
			row.Note = m.Override.String()
		case figures.Avoided:
			row.Note = "avoided"
		case !figures.Silent.IsZero() && now.Sub(figures.Silent) > silentAfter:
			row.Note = "silent"
		}
		if figures.Told {
			row.Up = now.Add(-figures.Up).Unix() / 10 * 10000 // by ten seconds: the way there and back makes it tremble
		}
		if old, there := t.members[m.ID]; there && row.Up-old.Up <= 10000 && old.Up-row.Up <= 10000 {
			row.Up = old.Up
		}
		if t.members[m.ID] != row {
			t.members[m.ID], f.Members[m.ID] = row, row
		}
		live := liveRow{
			round(p.Snapshot.Ring.Share(m.ID), 1e6), float64(figures.Own), float64(figures.Sessions), round(figures.PushesPerSecond, 10),
			float64(figures.Misplaced), float64(figures.QueueBytes), float64(figures.Moves),
		}
		if old, there := t.live[m.ID]; !there || old != live {
			t.live[m.ID], f.Live[m.ID] = live, live
		}
	}
	for id := range t.members {
		if _, there := p.Snapshot.Member(id); !there {
			delete(t.members, id)
			delete(t.live, id)
			f.Gone = append(f.Gone, id)
		}
	}
	for id, figures := range p.Figures {
		if figures.Failures == 0 {
			continue
		}
		row := failureRow{figures.Failures, figures.LastFailure.At.UnixMilli(), figures.LastFailure.Error}
		if t.failures[id] != row {
			t.failures[id], f.Failures[id] = row, row
		}
	}
}

func (t *teller) tellHappenings(f *frame, p *Picture) {
	for _, e := range p.Changes.After(t.change, changesShown) {
		t.change = e.Number
		f.Changes = append(f.Changes, changeRow{e.Number, e.At.UnixMilli(), e.What})
	}
	most := closuresAtOnce
	if f.First {
		most = closuresAtFirst
	}
	for _, e := range p.Closures.After(t.closure, most) {
		t.closure = e.Number
		f.Closures = append(f.Closures, closureRow{e.Number, e.At.UnixMilli(), e.What})
	}
}

func round(v, places float64) float64 { return math.Round(v*places) / places }

func equalRows(a, b []serviceRow) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}
