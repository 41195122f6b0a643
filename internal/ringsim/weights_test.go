package ringsim

import (
	"slices"
	"strings"
	"testing"
)

func TestWeights(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []int
	}{
		{"3", []int{3}},
		{"1,2,4", []int{1, 2, 4}},
		{"1-4", []int{1, 2, 3, 4}},
		{"1x3, 2x2", []int{1, 1, 1, 2, 2}},
		{"1-2x2,9", []int{1, 2, 1, 2, 9}},
		{"1000", []int{1000}},
	} {
		var w Weights
		if err := w.Set(tt.text); err != nil || !slices.Equal(w.deal, tt.want) || w.String() != tt.text {
			t.Errorf("%q: %v, %v; want %v", tt.text, w.deal, err, tt.want)
		}
		for i := range 2 * len(tt.want) {
			if got, want := w.of(i), tt.want[i%len(tt.want)]; got != want {
				t.Errorf("%q: member %d gets %d, want %d", tt.text, i, got, want)
			}
		}
	}
	var none Weights
	if none.of(7) != 1 || none.String() != "1" {
		t.Errorf("the zero value deals %d and says %q", none.of(7), none.String())
	}
}

func TestWeightsRefuse(t *testing.T) {
	for text, names := range map[string]string{
		"": "1 to 1000", "x": "1 to", "0": "1 to 1000", "1001": "1 to 1000", "-1": "1 to 1000", "1,": `""`, "1xx2": "after x",
		"1x0": "after x", "1x": "after x", "2-1": "ends before", "1-": "1 to 1000", "a": `"a"`, "1x65537": "after x",
		"1-1000x65536": "more than", "1x65536,1": "more than", "99999999999999999999": "1 to 1000",
	} {
		w := Weights{text: "7", deal: []int{7}}
		if err := w.Set(text); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%q: %v; want an error that says %s", text, err, names)
		}
		if w.String() != "7" {
			t.Errorf("%q: an error changed the weights to %v", text, w.deal)
		}
	}
}

func FuzzWeights(f *testing.F) {
	for _, text := range []string{"1", "1x900,2x100", "1-10", "3-5x7, 2"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var w Weights
		if w.Set(text) != nil {
			return
		}
		if len(w.deal) == 0 || len(w.deal) > maxDeal || slices.Min(w.deal) < 1 || slices.Max(w.deal) > 1000 {
			t.Fatalf("%q: %d weights, out of bounds", text, len(w.deal))
		}
	})
}
