package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestShortRun(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	var text strings.Builder
	if err := run(&text, io.Discard, true, dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "ring.json"))
	var r report
	if err != nil || json.Unmarshal(data, &r) != nil || !r.Short || len(r.Contenders) != len(contenders) || len(r.Musts) != 9 {
		t.Fatalf("%v: %s", err, data)
	}
	for _, f := range r.Contenders {
		if !strings.Contains(text.String(), "| "+f.Name+" |") {
			t.Errorf("%s is not in the table", f.Name)
		}
		if f.Peak100 < 1 || f.Peak10 < 1 || f.OwnerNS <= 0 || f.AddMS <= 0 || f.AddCold <= 0 {
			t.Errorf("%+v", f)
		}
	}
	// What does not depend on how long it runs.
	ours, envoy, jump := r.Contenders[0], r.Contenders[3], r.Contenders[9]
	if ours.BetweenOnAdd+ours.BetweenOnRemove != 0 || ours.Allocs != 0 || ours.Peak100 > 1.06 {
		t.Errorf("ours: %+v", ours)
	}
	if envoy.BetweenOnAdd == 0 || jump.BetweenOnRemove < 0.1 || jump.BetweenOnAdd != 0 {
		t.Errorf("between survivors: Envoy %g on add, jump %g on add and %g on remove",
			envoy.BetweenOnAdd, jump.BetweenOnAdd, jump.BetweenOnRemove)
	}
	svg, err := os.Open(filepath.Join(dir, "ring.svg"))
	if err != nil {
		t.Fatal(err)
	}
	defer svg.Close()
	dots := 0
	for d := xml.NewDecoder(svg); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if e, ok := token.(xml.StartElement); ok && e.Name.Local == "circle" {
			dots++
		}
	}
	if dots != 2*len(contenders) {
		t.Errorf("%d dots in the plot, want %d", dots, 2*len(contenders))
	}
}

// Shares that a table tells are those that keys see, and every member gets some.
func TestSharesAreWhatKeysSee(t *testing.T) {
	keys := randomKeys(200_000)
	for _, c := range contenders {
		members := equal(0, 10)
		if c.weights {
			for i := range members {
				members[i].weight = 1 + i%3
			}
		}
		table := c.build(members)
		if table.shares == nil {
			continue
		}
		told, counted, sum := table.shares(), make(map[string]float64), 0.0
		for _, key := range keys {
			counted[table.owner(key)] += 1.0 / float64(len(keys))
		}
		for _, m := range members {
			sum += told[m.id]
			if math.Abs(told[m.id]-counted[m.id]) > 0.005 {
				t.Errorf("%s: %s has a share of %.4f, and %.4f of the keys", c.name, m.id, told[m.id], counted[m.id])
			}
		}
		if math.Abs(sum-1) > 1e-9 {
			t.Errorf("%s: shares add up to %v", c.name, sum)
		}
	}
}

func TestEnvoyDealsOutPoints(t *testing.T) {
	for _, tt := range []struct{ members, each int }{{1, 1024}, {10, 103}, {100, 11}, {102, 11}, {103, 10}, {2000, 1}} {
		count := inAll(equal(0, tt.members), 1024)
		for i := range tt.members {
			if count(i) != tt.each {
				t.Fatalf("member %d of %d has %d points, want %d", i, tt.members, count(i), tt.each)
			}
		}
	}
}

func TestJudge(t *testing.T) {
	off := 0.05
	ours := figures{Name: "ours", Peak100: 1.04, Peak10: 1.02, Off: &off, OwnerNS: 40, AddMS: 2, KiBEach: 60}
	peers := []figures{
		{Name: "even and fast, moves", Peak100: 1.02, OwnerNS: 10, BetweenOnAdd: 0.01},
		{Name: "uneven and fast", Peak100: 1.2, OwnerNS: 10},
		{Name: "even and slow", Peak100: 1.05, OwnerNS: 50},
	}
	verdict := func(o figures, l large) (unmet []int) {
		for i, m := range judge(append([]figures{o}, peers...), l) {
			if !m.Met {
				unmet = append(unmet, i)
			}
		}
		return unmet
	}
	small := large{1000, 60 << 20, 0}
	if got := verdict(ours, small); len(got) != 1 || got[0] != 5 {
		t.Errorf("unmet: %v, want only the peer that is faster and moves", got)
	}
	worse := 0.07
	bad := figures{Peak100: 1.06, Peak10: 1.04, Off: &worse, OwnerNS: 51, AddMS: 4, KiBEach: 65, BetweenOnRemove: 1e-6}
	if got, all := verdict(bad, large{1000, 65 << 20, 1}), len(judge([]figures{bad}, small)); all != 9 || len(got) != all {
		t.Errorf("unmet: %v, want all of %d", got, all)
	}
}
