package systemtest

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"
)

// report is a chaos run in figures.
type report struct {
	began      time.Time
	phases     []time.Time // beginnings
	pushes     []*push
	sessions   []*session
	silences   []silence
	events     []*event
	leastMoves int

	verdict *verdict
	shares  []float64 // of each phase's pushes that were delivered
}

const (
	shownViolations = 20
	// cleanShare and killShare are the promises for the first two phases; with longer times no figures are promised.
	cleanShare, killShare = 0.999, 0.995
	killP50, killP99      = 100 * time.Millisecond, time.Second
	// roughly is what a short run must keep, with few samples, on a machine that does other things, too.
	roughShare, roughP99 = 0.9, 10 * time.Second
)

func (r *report) judge(t *testing.T) {
	t.Helper()
	r.verdict = judge(r.pushes, r.sessions, r.silences, time.Now())
	for i, text := range r.verdict.violations() {
		if i == shownViolations {
			t.Errorf("... and %d more", len(r.verdict.violations())-i)
			break
		}
		t.Error(text)
	}
	for i, from := range r.phases {
		to := time.Now()
		if i+1 < len(r.phases) {
			to = r.phases[i+1]
		}
		r.shares = append(r.shares, r.deliveredShare(from, to))
	}
}

// deliveredShare is the share of even pushes begun in that time that ended DELIVERED.
func (r *report) deliveredShare(from, to time.Time) float64 {
	all, delivered := 0, 0
	for _, p := range r.pushes {
		if p.probe || p.began.Before(from) || !p.began.Before(to) {
			continue
		}
		all++
		if p.sessions > 0 {
			delivered++
		}
	}
	return float64(delivered) / float64(max(all, 1))
}

func (r *report) print(t *testing.T) {
	t.Helper()
	v := r.verdict
	probes := 0
	for _, p := range r.pushes {
		if p.probe {
			probes++
		}
	}
	t.Logf("%d pushes (%d of them ask when a user can be reached again): %d delivered, %d offline", len(r.pushes), probes, v.delivered, v.offline)
	for _, reason := range slices.Sorted(maps.Keys(v.failed)) {
		t.Logf("    %6d  %s", v.failed[reason], reason)
	}
	t.Logf("lost %d, duplicates %d, wrong n %d, false OFFLINE %d, late %d, strayed %d",
		len(v.lost), len(v.twice), len(v.wrongN), len(v.falseOffline), len(v.late), len(v.strayed))
	t.Logf("in flight at break: %d sessions; opened and never seen by a client: %d", v.inFlight, v.ghosts)
	for i, name := range []string{"clean events only", "kill -9, too", "everything"} {
		if i < len(r.shares) {
			t.Logf("delivered with %-18s %7.3f %%", name+":", 100*r.shares[i])
		}
	}
	t.Logf("%-20s %6s %6s   until a push to a user is delivered again", "event", "times", "users")
	for _, k := range slices.Concat(cleanKinds, []kind{killed}, dirtyKinds, []kind{killedAmidst}) {
		times, users, missing, took := r.failover(k)
		if times == 0 {
			continue
		}
		line := fmt.Sprintf("%-20s %6d %6d", k, times, users)
		if len(took) > 0 {
			line += fmt.Sprintf("   p50 %v, p99 %v", ms(quantile(took, 0.5)), ms(quantile(took, 0.99)))
		}
		if back := r.backAfter(k); len(back) > 0 {
			line += fmt.Sprintf("; its clients are back: p50 %v, p99 %v", ms(quantile(back, 0.5)), ms(quantile(back, 0.99)))
		}
		if missing > 0 {
			line += fmt.Sprintf("; %d not within %v", missing, probeFor)
		}
		t.Log(line)
	}
	moved, closes, most := r.moves()
	t.Logf("%d sessions changed their backend; by Consul's rings %d had to", moved, r.leastMoves)
	t.Logf("%d sessions ended, %d at most in one second", closes, most)
	t.Logf("clients log a message %v after its push was answered (p99; the judge allows for %v)", ms(quantile(r.lags(), 0.99)), logLag)
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// failover puts the events of a kind together.
func (r *report) failover(k kind) (times, users, missing int, took []time.Duration) {
	for _, e := range r.events {
		if e.kind == k {
			times++
			users += len(e.users)
			missing += e.missing
			took = append(took, e.reached...)
		}
	}
	return times, users, missing, sorted(took)
}

// backAfter lists how long after its process was killed each client that it held had another session.
func (r *report) backAfter(k kind) []time.Duration {
	var took []time.Duration
	for _, e := range r.events {
		if e.kind != k || k != killed && k != killedAmidst && k != edgeKilled {
			continue
		}
		broken := make(map[string]bool) // devices
		for _, s := range r.sessions {
			device := s.user + "/" + s.device
			if s.cause == broke && (s.backend == e.subject || s.edge == e.subject) && (span{e.at, e.at.Add(logLag)}).meets(s.ended, s.ended) {
				broken[device] = true
			} else if broken[device] && !s.opened.IsZero() {
				took = append(took, s.opened.Sub(e.at))
				delete(broken, device)
			}
		}
	}
	return sorted(took)
}

// moves counts sessions that another backend held than the device's last one, and sessions that ended, in all and at most in one second.
func (r *report) moves() (moved, closes, most int) {
	at := make(map[string]string) // backend, by device
	var ends []time.Time
	for _, s := range r.sessions { // in order, for each device
		device := s.user + "/" + s.device
		if s.backend != "" {
			if s.opened.After(r.began) && at[device] != s.backend {
				moved++
			}
			at[device] = s.backend
		}
		if !s.opened.IsZero() && s.ended.After(r.began) && s.cause != left {
			ends = append(ends, s.ended)
		}
	}
	slices.SortFunc(ends, time.Time.Compare)
	return moved, len(ends), mostWithin(ends, time.Second)
}

// mostWithin is the largest number of the times, which are in order, that lie in any span of that length.
func mostWithin(times []time.Time, length time.Duration) int {
	most, first := 0, 0
	for i := range times {
		for times[i].Sub(times[first]) >= length {
			first++
		}
		most = max(most, i-first+1)
	}
	return most
}

// calmEnd is when the first things happen that keep processes from speaking: until then messages arrive as they are sent.
func (r *report) calmEnd() time.Time { return r.phases[min(2, len(r.phases)-1)] }

// lags lists how long after a push was answered its message was logged; 0 where it was before.
func (r *report) lags() []time.Duration {
	ended := make(map[string]time.Time)
	for _, p := range r.pushes {
		if p.sessions > 0 && p.ended.Before(r.calmEnd()) {
			ended[p.id] = p.ended
		}
	}
	var lags []time.Duration
	for _, s := range r.sessions {
		for _, g := range s.got {
			if end := ended[g.id]; !end.IsZero() {
				lags = append(lags, max(0, g.at.Sub(end)))
			}
		}
	}
	return sorted(lags)
}

// check holds the figures against what is promised.
func (r *report) check(t *testing.T, long bool) {
	t.Helper()
	clean, kills, p50, p99 := roughShare, roughShare, roughP99, roughP99
	if long {
		clean, kills, p50, p99 = cleanShare, killShare, killP50, killP99
	}
	for i, want := range []float64{clean, kills} {
		if i < len(r.shares) && r.shares[i] < want {
			t.Errorf("phase %d: %.3f %% were delivered; want %.1f %%", i+1, 100*r.shares[i], 100*want)
		}
	}
	_, _, missing, took := r.failover(killed)
	if missing > 0 || quantile(took, 0.5) > p50 || quantile(took, 0.99) > p99 {
		t.Errorf("after kill -9 users are reached again with p50 %v and p99 %v, and %d are not; want %v and %v and none",
			ms(quantile(took, 0.5)), ms(quantile(took, 0.99)), missing, p50, p99)
	}
}
