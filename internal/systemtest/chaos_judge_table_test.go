package systemtest

import (
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// The logs of these cases are of one user, alice, in seconds.

func second(s float64) time.Time { return logZero.Add(time.Duration(s * float64(time.Second))) }

// answered is a completed push; n 0 is OFFLINE.
func answered(id string, began, ended float64, n int) *push {
	return &push{id: id, user: "alice", began: second(began), ended: second(ended), sessions: n}
}

// held is a session at b1 by e1 from its 101 until the end of the logs.
func held(opened float64, got ...string) *session {
	s := &session{user: "alice", device: "d0", id: "s", backend: "b1", edge: "e1", tried: second(opened - 0.01), opened: second(opened)}
	for _, id := range got {
		s.got = append(s.got, receipt{id, second(opened + 0.01)})
	}
	return s
}

func (s *session) until(ended float64, why cause, code ...ws.StatusCode) *session {
	s.ended, s.cause = second(ended), why
	for _, c := range code {
		s.code = c
	}
	return s
}

func (s *session) heard(id string, when float64) *session {
	s.got = append(s.got, receipt{id, second(when)})
	return s
}

func TestJudge(t *testing.T) {
	cut := []silence{{"b1", "e1", second(4), second(10)}}
	stop := []silence{{"b1", "", second(4), second(9)}}
	type found struct{ lost, twice, wrongN, falseOffline, late, strayed, inFlight, ghosts int }
	for name, test := range map[string]struct {
		pushes   []*push
		sessions []*session
		silences []silence
		want     found
	}{
		"two devices get it": {
			pushes:   []*push{answered("m", 5, 5.1, 2)},
			sessions: []*session{held(1, "m"), held(1, "m")},
		},
		"nobody gets what was told as delivered": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1)},
			want:     found{lost: 1},
		},
		"nobody was there to get it": {
			pushes: []*push{answered("m", 5, 5.1, 1)},
			want:   found{lost: 1},
		},
		"one of two devices is left out": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1, "m"), held(1)},
			want:     found{lost: 1},
		},
		"left out, and broke afterwards: it was not even counted": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1, "m"), held(1).until(7, broke)},
			want:     found{wrongN: 1},
		},
		"one session twice": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1, "m", "m")},
			want:     found{twice: 1},
		},
		"twice counts after an error, too": {
			pushes:   []*push{{id: "m", user: "alice", began: second(5), ended: second(6), failure: "aborted UNSETTLED"}},
			sessions: []*session{held(1, "m", "m")},
			want:     found{twice: 1},
		},
		"one device once in each of two sessions": { // the first broke before the answer; the retry reached the second
			pushes:   []*push{answered("m", 5, 6, 1)},
			sessions: []*session{held(1, "m").until(5.5, broke), held(5.6, "m")},
		},
		"an error promises nothing": {
			pushes:   []*push{{id: "m", user: "alice", began: second(5), ended: second(6), failure: "aborted UNSETTLED"}},
			sessions: []*session{held(1, "m"), held(1)},
		},
		"told more than got it": {
			pushes:   []*push{answered("m", 5, 5.1, 2)},
			sessions: []*session{held(1, "m")},
			want:     found{lost: 1},
		},
		"told fewer than got it": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1, "m"), held(1, "m")},
			want:     found{wrongN: 1},
		},
		"told OFFLINE, and one got it": {
			pushes:   []*push{answered("m", 5, 5.1, 0)},
			sessions: []*session{held(1, "m")},
			want:     found{wrongN: 1},
		},
		"OFFLINE while a session was open throughout": {
			pushes:   []*push{answered("m", 5, 5.1, 0)},
			sessions: []*session{held(1)},
			want:     found{falseOffline: 1},
		},
		"OFFLINE while a session was open throughout, which breaks later": {
			pushes:   []*push{answered("m", 5, 5.1, 0)},
			sessions: []*session{held(1).until(6, broke)},
			want:     found{falseOffline: 1},
		},
		"OFFLINE while one of two was always open": {
			pushes:   []*push{answered("m", 5, 9, 0)},
			sessions: []*session{held(7), held(1).until(8, told, 1012)},
			want:     found{falseOffline: 1},
		},
		"it comes again, to a session that opened after the answer": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1, "m").until(7, broke), held(7.1, "m")},
			want:     found{late: 1},
		},
		"OFFLINE, and it comes to a session that opened long after": {
			pushes:   []*push{answered("m", 5, 5.1, 0)},
			sessions: []*session{held(7, "m")},
			want:     found{late: 1},
		},
		"it comes after an error": {
			pushes:   []*push{{id: "m", user: "alice", began: second(5), ended: second(6), failure: "deadline_exceeded"}},
			sessions: []*session{held(7, "m")},
		},
		"told fewer than got it, one of which came meanwhile": {
			pushes:   []*push{answered("m", 5, 6, 1)},
			sessions: []*session{held(1, "m"), held(5.5, "m")},
			want:     found{wrongN: 1},
		},
		"OFFLINE while one was open throughout, and another ended": {
			pushes:   []*push{answered("m", 3, 5, 0)},
			sessions: []*session{held(1), held(2).until(4, broke)},
			want:     found{falseOffline: 1},
		},
		"OFFLINE before anybody came":  {pushes: []*push{answered("m", 5, 5.1, 0)}, sessions: []*session{held(6)}},
		"OFFLINE in a gap":             {pushes: []*push{answered("m", 5, 9, 0)}, sessions: []*session{held(1).until(6, broke), held(6.1)}},
		"OFFLINE just before a close":  {pushes: []*push{answered("m", 5, 5.1, 0)}, sessions: []*session{held(1).until(5.3, told, 1012)}},
		"OFFLINE long before a close":  {pushes: []*push{answered("m", 5, 5.1, 0)}, sessions: []*session{held(1).until(6, told, 1012)}, want: found{falseOffline: 1}},
		"a session comes meanwhile":    {pushes: []*push{answered("m", 5, 6, 0)}, sessions: []*session{held(5.5)}},
		"a session ends meanwhile":     {pushes: []*push{answered("m", 5, 6, 1)}, sessions: []*session{held(1, "m"), held(1).until(5.5, told, 1012)}},
		"another user's message":       {pushes: []*push{{id: "m", user: "bob", began: second(5), ended: second(5.1), failure: "x"}}, sessions: []*session{held(1, "m")}, want: found{strayed: 1}},
		"a message that nobody sent":   {sessions: []*session{held(1, "m")}, want: found{strayed: 1}},
		"told before the 101 was read": {pushes: []*push{answered("m", 0.9, 0.995, 1)}, sessions: []*session{held(1, "m")}},

		"in flight at break": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1).until(5.2, broke)},
			want:     found{inFlight: 1},
		},
		"in flight at a break that the backend does not know of yet": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1).until(4.8, broke)},
			want:     found{inFlight: 1},
		},
		"in flight at a break that took long": {
			pushes:   []*push{answered("m", 5, 5.1, 1), answered("k", 5.2, 5.3, 1)},
			sessions: []*session{held(1).until(20, broke)},
			want:     found{inFlight: 2},
		},
		"in flight at break, but a later one came": {
			pushes:   []*push{answered("m", 5, 5.1, 1), answered("later", 6, 6.1, 1)},
			sessions: []*session{held(1).heard("later", 6.2).until(6.3, broke)},
			want:     found{lost: 1},
		},
		"broke long before": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1).until(3, broke)},
			want:     found{lost: 1},
		},
		"closed with 1012 right after: all bytes must be there": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1).until(5.2, told, 1012)},
			want:     found{lost: 1},
		},
		"closed by the client right after": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{held(1).until(5.2, left)},
			want:     found{lost: 1},
		},
		"only as many as broke are excused": {
			pushes:   []*push{answered("m", 5, 5.1, 3)},
			sessions: []*session{held(1, "m"), held(1).until(5.2, broke)},
			want:     found{lost: 1},
		},
		"counted a session whose 101 never arrived": {
			pushes:   []*push{answered("m", 5, 5.1, 1)},
			sessions: []*session{{user: "alice", edge: "e1", tried: second(4.9), ended: second(5.2), cause: notOpened}},
			want:     found{ghosts: 1},
		},
		"counted a session that an edge gave up on": {
			pushes:   []*push{answered("m", 5, 5.1, 2)},
			sessions: []*session{{user: "alice", backend: "b1", edge: "e1", tried: second(4), opened: second(5.05), got: []receipt{{"m", second(5.2)}}}},
			want:     found{ghosts: 1},
		},
		"no try, no ghost": {
			pushes:   []*push{answered("m", 5, 5.1, 2)},
			sessions: []*session{held(1, "m")},
			want:     found{lost: 1},
		},

		"behind a cut, OFFLINE, and the close frame comes late": {
			pushes:   []*push{answered("m", 7, 7.1, 0)},
			sessions: []*session{held(1).until(11, told, 1012)},
			silences: cut,
		},
		"behind a cut, OFFLINE, and what was sent before comes late, with the close frame": {
			pushes:   []*push{answered("m", 5, 5.1, 1), answered("k", 7, 7.1, 0)},
			sessions: []*session{held(1).heard("m", 11).until(11.1, told, 1012)},
			silences: cut,
		},
		"behind a cut, OFFLINE, and the session lives on": {
			pushes:   []*push{answered("m", 7, 7.1, 0), answered("later", 12, 12.1, 1)},
			sessions: []*session{held(1).heard("later", 12.1)},
			silences: cut,
			want:     found{falseOffline: 1},
		},
		"OFFLINE before the cut behind which the session ended": {
			pushes:   []*push{answered("m", 2, 2.1, 0)},
			sessions: []*session{held(1).until(11, told, 1012)},
			silences: cut,
			want:     found{falseOffline: 1},
		},
		"behind another's cut, OFFLINE": {
			pushes:   []*push{answered("m", 7, 7.1, 0)},
			sessions: []*session{held(1).until(11, told, 1012)},
			silences: []silence{{"b1", "e2", second(4), second(10)}, {"b2", "e1", second(4), second(10)}},
			want:     found{falseOffline: 1},
		},
		"behind a cut, delivered late": {
			pushes:   []*push{answered("m", 7, 7.1, 1)},
			sessions: []*session{held(1).heard("m", 12)},
			silences: cut,
		},
		"behind a cut, the client has gone and the backend does not know": {
			pushes:   []*push{answered("m", 7, 7.1, 1)},
			sessions: []*session{held(1).until(5, broke)},
			silences: cut,
			want:     found{inFlight: 1},
		},
		"the cut is healed, and the backend does not know yet that the client has gone": {
			pushes:   []*push{answered("m", 12, 12.1, 1)},
			sessions: []*session{held(1).until(5, broke)},
			silences: cut,
			want:     found{inFlight: 1},
		},
		"stopped, and wakes to answer an edge that has gone elsewhere": {
			pushes:   []*push{answered("m", 9.1, 9.2, 2)},
			sessions: []*session{{user: "alice", backend: "b2", edge: "e1", tried: second(5), opened: second(7), got: []receipt{{"m", second(9.2)}}}},
			silences: stop,
			want:     found{ghosts: 1},
		},
		"stopped, OFFLINE while its session lives on": {
			pushes:   []*push{answered("m", 7, 7.1, 0), answered("later", 12, 12.1, 1)},
			sessions: []*session{held(1).heard("later", 12.1)},
			silences: stop,
			want:     found{falseOffline: 1},
		},
		"stopped, and wakes with a session whose client has gone": {
			pushes:   []*push{answered("m", 9.1, 9.2, 1)},
			sessions: []*session{held(1).until(6, broke)},
			silences: stop,
			want:     found{inFlight: 1},
		},
		"stopped, and long awake": {
			pushes:   []*push{answered("m", 11, 11.1, 1)},
			sessions: []*session{held(1).until(6, broke)},
			silences: stop,
			want:     found{lost: 1},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := judge(test.pushes, test.sessions, test.silences, second(60))
			got := found{len(v.lost), len(v.twice), len(v.wrongN), len(v.falseOffline), len(v.late), len(v.strayed), v.inFlight, v.ghosts}
			if got != test.want {
				t.Errorf("found %+v, want %+v\n%q", got, test.want, v.violations())
			}
		})
	}
}
