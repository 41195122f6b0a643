package discovery

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// group makes members m0, m1, ... of one letter each: p passing, w warning, c critical, d draining and critical, j joining and critical,
// 0 of weight 0 and critical, n a critical newcomer.
func group(letters string) []Member {
	var members []Member
	for i, letter := range letters {
		m := member("m" + string(rune('0'+i)))
		switch letter {
		case 'w':
			m.Health = Warning
		case 'c':
			m.Health = Critical
		case 'd':
			m.Health, m.State = Critical, Draining
		case 'j':
			m.Health, m.State = Critical, Joining
		case '0':
			m.Health, m.Weight = Critical, 0
		case 'n':
			m.ID, m.Health = "new"+m.ID, Critical
		}
		members = append(members, m)
	}
	return members
}

func TestPanic(t *testing.T) {
	for _, c := range []struct {
		members   string
		threshold float64
		ring      string // digits of those in the ring
		panics    bool
	}{
		{"", 0.5, "", false},
		{"pppp", 0.5, "0123", false},
		{"ppcc", 0.5, "01", false}, // half is not fewer than half
		{"pccc", 0.5, "0123", true},
		{"wccc", 0.5, "0123", true},
		{"wwcc", 0.5, "01", false},
		{"c", 0.5, "0", true},
		{"pc", 0.5, "0", false},
		{"pccc", 0, "0", false},
		{"cccc", 0, "", false},
		{"pppc", 1, "0123", true},
		{"pccc", 0.25, "0", false},

		// What an operator takes away does not count, and does not come back.
		{"pdddddd", 0.5, "0", false},
		{"p000000", 0.5, "0", false},
		{"pjjjjjj", 0.5, "0", false},
		{"ppddddc", 0.5, "01", false},
		{"pdddcc", 0.5, "045", true},
		{"dddd", 0.5, "", false},

		// Nor do those that are critical because they are only starting.
		{"ppnnnnn", 0.5, "01", false},
		{"pccnnnn", 0.5, "012", true},
	} {
		members := group(c.members)
		proven := func(id string) bool { return !strings.HasPrefix(id, "new") }
		panics := keepCritical(members, c.threshold, proven)
		var ring strings.Builder
		for i, m := range members {
			if m.InRing() {
				ring.WriteByte(byte('0' + i))
			}
		}
		if panics != c.panics || ring.String() != c.ring {
			t.Errorf("%q at %v: panics %v, ring %s; want %v, %s", c.members, c.threshold, panics, ring.String(), c.panics, c.ring)
		}
	}
}

// TestCatalogueInPanic: the ring does not change while too many are critical, follows again after it, and each is logged once.
func TestCatalogueInPanic(t *testing.T) {
	w, last := newCatalogue(t)
	core, logs := observer.New(zapcore.InfoLevel)
	w.log, w.panicThreshold = zap.New(core), 0.5
	critical := status("critical")
	now := time.Unix(1000, 0)
	all := []string{"a", "b", "c", "d"}
	for i, c := range []struct {
		critical string
		ring     string
		lines    int
	}{
		{"", "abcd", 0},
		{"a", "bcd", 0}, // the first is out at once
		{"ab", "cd", 0},
		{"abc", "abcd", 1},
		{"abcd", "abcd", 1},
		{"abc", "abcd", 1},
		{"ab", "cd", 2},
		{"", "abcd", 2},
	} {
		var entries []*api.ServiceEntry
		for _, id := range all {
			e := entry(id)
			if strings.Contains(c.critical, id) {
				critical(e)
			}
			entries = append(entries, e)
		}
		now = now.Add(2 * dampWindow)
		w.take(now, entries, answered(uint64(i+1)))
		got, _ := last()
		if ring := strings.Join(ids(got), ""); ring != c.ring {
			t.Errorf("critical %q: ring %q, want %q", c.critical, ring, c.ring)
		}
		if n := logs.Len(); n != c.lines {
			t.Errorf("critical %q: %d lines logged, want %d", c.critical, n, c.lines)
		}
	}
}

// TestDeregisteredInPanic: those that the registry drops leave a ring in panic, too.
func TestDeregisteredInPanic(t *testing.T) {
	w, last := newCatalogue(t)
	w.panicThreshold = 0.5
	now := time.Unix(1000, 0)
	dead := status("critical")
	w.take(now, []*api.ServiceEntry{entry("a"), entry("b"), entry("c")}, answered(1))
	w.take(now, []*api.ServiceEntry{entry("a"), entry("b", dead), entry("c", dead)}, answered(2))
	w.take(now, []*api.ServiceEntry{entry("a")}, answered(3))
	if got, _ := last(); !slices.Equal(ids(got), []string{"a"}) || got[0].Override != NotOverridden {
		t.Errorf("%s", show(got))
	}
}
