package backend

import "testing"

func TestMeter(t *testing.T) {
	var m meter
	if r := m.perSecond(); r != 0 {
		t.Errorf("nothing is known yet: %v", r)
	}
	for i, want := range []float64{0, 100, 100, 100} { // one sample tells nothing; from then on what was since the first
		if m.sample(uint64(1000 + 100*i)); m.perSecond() != want {
			t.Errorf("after %d samples: %v, want %v", i+1, m.perSecond(), want)
		}
	}
	for range rateSeconds / 2 {
		m.sample(1300)
	}
	if r := m.perSecond(); r <= 0 || r >= 100 {
		t.Errorf("half of the time idle: %v", r)
	}
	for range rateSeconds {
		m.sample(1300)
	}
	if r := m.perSecond(); r != 0 {
		t.Errorf("idle: %v", r)
	}
}
