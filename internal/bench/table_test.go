package bench

import (
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	table := Table{Title: "T", Columns: []string{"", "a"}, Rows: [][]string{{"one", "1"}, {"fifteen", "1,500"}}, Notes: []string{"n"}}
	var b strings.Builder
	if err := table.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	const want = "T\n\n" +
		"               a\n" +
		"  one          1\n" +
		"  fifteen  1,500\n" +
		"\nn\n"
	if b.String() != want {
		t.Errorf("got\n%q; want\n%q", b.String(), want)
	}
}

func TestThousands(t *testing.T) {
	for f, want := range map[float64]string{0: "0", 3: "3", 99.94: "99.9", 100.4: "100", 1234567.8: "1,234,568", -1234: "-1,234", -0.5: "-0.5"} {
		if got := thousands(f); got != want {
			t.Errorf("%v is %q; want %q", f, got, want)
		}
	}
}

func TestScale(t *testing.T) {
	for _, c := range []struct{ most, step, top float64 }{{250, 50, 250}, {18_071, 5_000, 20_000}, {0, 0.2, 1}} {
		step, top := plot{series: []series{{figures: []float64{c.most}}}}.scale()
		if step != c.step || top != c.top {
			t.Errorf("of %v: step %v, top %v; want %v, %v", c.most, step, top, c.step, c.top)
		}
	}
}
