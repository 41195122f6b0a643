package admin

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/discovery"
)

// snapshot is what a view makes of members.
func snapshot(t *testing.T, members ...discovery.Member) *discovery.Snapshot {
	t.Helper()
	registry := discovery.NewMemory()
	for _, m := range members {
		registry.Put("chat", m)
	}
	view := discovery.NewView("chat", registry, nil)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- view.Run(ctx) }()
	<-view.Ready()
	cancel()
	<-ended
	return view.Snapshot()
}

func b(n int, change ...func(*discovery.Member)) discovery.Member {
	m := discovery.Member{ID: fmt.Sprint("b", n), Addr: fmt.Sprintf("127.0.0.1:%d", 9000+n), RPCAddr: fmt.Sprintf("127.0.0.1:%d", 9100+n), Weight: 1}
	for _, f := range change {
		f(&m)
	}
	return m
}

func critical(m *discovery.Member) { m.Health = discovery.Critical }
func draining(m *discovery.Member) { m.State = discovery.Draining }
func joining(m *discovery.Member)  { m.State = discovery.Joining }

func told(sessions int) Figures { return Figures{Told: true, Sessions: sessions} }

func TestVerdict(t *testing.T) {
	now := time.Now()
	silent := func(d time.Duration) Figures { return Figures{Silent: now.Add(-d)} }
	for name, test := range map[string]struct {
		members  []discovery.Member
		change   func(*Picture)
		level    Level
		headline string
		says     string // in the first finding; "": there is none
	}{
		"calm":               {[]discovery.Member{b(1), b(2)}, nil, Calm, "Healthy", ""},
		"nobody":             {nil, nil, Alarm, "Nobody is there", "No member of service chat"},
		"nobody on the ring": {[]discovery.Member{b(1, draining)}, nil, Alarm, "The ring is empty", "503"},
		"one of three dead":  {[]discovery.Member{b(1), b(2, critical), b(3)}, nil, Worry, "b2 is down", "b2 is critical"},
		"half dead":          {[]discovery.Member{b(1), b(2, critical)}, nil, Alarm, "b2 is down", "b2 is critical"},
		"two dead":           {[]discovery.Member{b(1), b(2, critical), b(3, critical), b(4), b(5)}, nil, Worry, "b2 and b3 are down", "b2 and b3 are critical"},
		"five dead": {[]discovery.Member{b(1, critical), b(2, critical), b(3, critical), b(4, critical), b(5, critical), b(6), b(7), b(8), b(9), b(10), b(11)},
			nil, Worry, "5 members are down", "b1, b2 and 3 more are critical"},
		"not believed": {[]discovery.Member{b(1), b(2, critical, func(m *discovery.Member) { m.Override = discovery.Kept })}, nil, Alarm,
			"Too many are critical", "b2 is critical and kept"},
		"not ready": {[]discovery.Member{b(1)}, func(p *Picture) { p.Process.NotReady = "draining" }, Alarm, "Not ready", "This edge is not ready: draining."},
		"stale":     {[]discovery.Member{b(1)}, func(p *Picture) { p.Stale = true }, Worry, "The registry is away", "cannot be read"},
		"refused":   {[]discovery.Member{b(1)}, func(p *Picture) { p.Refused = "unauthenticated" }, Worry, "Members refuse this edge", "token"},
		"drains":    {[]discovery.Member{b(1), b(2, draining)}, func(p *Picture) { p.Figures["b2"] = told(1200) }, Busy, "Healthy; b2 is draining", "1,200 sessions"},
		"drained":   {[]discovery.Member{b(1), b(2, draining)}, func(p *Picture) { p.Figures["b2"] = told(0) }, Busy, "Healthy; b2 is drained", "empty"},
		"joins":     {[]discovery.Member{b(1), b(2, joining)}, nil, Busy, "Healthy; b2 is joining", "b2 is joining"},
		"moves": {[]discovery.Member{b(1), b(2)}, func(p *Picture) { p.Figures["b1"] = Figures{Told: true, Sessions: 9, Misplaced: 5} }, Busy,
			"Healthy; users are moving", "5 sessions at b1"},
		"avoided": {[]discovery.Member{b(1), b(2), b(3)}, func(p *Picture) { p.Figures["b2"] = Figures{Avoided: true} }, Worry, "b2 is unreachable", "not answering this edge"},
		"silent":  {[]discovery.Member{b(1), b(2), b(3)}, func(p *Picture) { p.Figures["b2"] = silent(time.Minute) }, Worry, "b2 is silent", "no answer"},
		"silent for a blink": {[]discovery.Member{b(1), b(2)}, func(p *Picture) { p.Figures["b2"] = silent(time.Second) }, Calm,
			"Healthy", ""},
		"another ring":                {[]discovery.Member{b(1), b(2)}, func(p *Picture) { p.Figures["b2"] = Figures{Told: true, DigestSince: now.Add(-time.Minute)} }, Worry, "Rings differ", "b2 is deciding"},
		"another ring after a change": {[]discovery.Member{b(1), b(2)}, func(p *Picture) { p.Figures["b2"] = Figures{Told: true, DigestSince: now.Add(-time.Second)} }, Calm, "Healthy", ""},
		"heavy":                       {[]discovery.Member{b(1), b(2), b(3)}, func(p *Picture) { p.Figures["b1"], p.Figures["b2"], p.Figures["b3"] = told(100), told(100), told(400) }, Worry, "b3 is heavy", "2.0 times"},
		"heavy while users move": {[]discovery.Member{b(1), b(2), b(3)}, func(p *Picture) {
			p.Figures["b1"], p.Figures["b2"], p.Figures["b3"] = told(100), told(100), Figures{Told: true, Sessions: 400, Misplaced: 200}
		}, Busy, "Healthy; users are moving", "200 sessions at b3"},
		"chance":                       {[]discovery.Member{b(1), b(2), b(3)}, func(p *Picture) { p.Figures["b1"], p.Figures["b2"], p.Figures["b3"] = told(1), told(1), told(4) }, Calm, "Healthy", ""},
		"one tells, and is not heavy":  {[]discovery.Member{b(1), b(2), b(3)}, func(p *Picture) { p.Figures["b1"] = told(5000) }, Calm, "Healthy", ""},
		"the worst comes first":        {[]discovery.Member{b(1), b(2, draining), b(3, critical), b(4), b(5)}, nil, Worry, "b3 is down", "b3 is critical"},
		"weights count for heaviness":  {[]discovery.Member{b(1), b(2, func(m *discovery.Member) { m.Weight = 4 })}, func(p *Picture) { p.Figures["b1"], p.Figures["b2"] = told(200), told(800) }, Calm, "Healthy", ""},
		"a member of another software": {[]discovery.Member{b(1, func(m *discovery.Member) { m.RPCAddr = "" })}, nil, Calm, "Healthy", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := &Picture{Process: Process{Role: "edge"}, Snapshot: snapshot(t, test.members...), Figures: make(map[string]Figures)}
			if test.change != nil {
				test.change(p)
			}
			v := judge(p, now)
			if v.Level != test.level || v.Headline != test.headline {
				t.Errorf("%v, %q; want %v, %q", v.Level, v.Headline, test.level, test.headline)
			}
			switch {
			case test.says == "" && len(v.Findings) > 0:
				t.Errorf("found %+v; want nothing", v.Findings)
			case test.says != "" && (len(v.Findings) == 0 || !strings.Contains(v.Findings[0].Text, test.says)):
				t.Errorf("found %+v; want first one that says %q", v.Findings, test.says)
			}
			for _, f := range v.Findings {
				if strings.Contains(f.Text+f.short, "WHO") || strings.Contains(f.Text+f.short, "COUNT") || strings.Contains(f.Text, "IS ") {
					t.Errorf("%q is not filled in", f.Text)
				}
			}
		})
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 12345: "12,345", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
