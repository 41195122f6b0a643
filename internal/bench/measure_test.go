package bench

import (
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCPUTime(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("processor time of processes is read on Linux only")
	}
	used := func() time.Duration {
		var r syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
			t.Fatal(err)
		}
		return time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	before := used()
	for used()-before < 50*time.Millisecond {
	}
	got, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if diff := (got - used()).Abs(); diff > 20*time.Millisecond {
		t.Errorf("%v off from what the kernel tells the process itself", diff)
	}
	if _, err := cpuTime(1 << 22); err == nil {
		t.Error("no error for a process that cannot exist")
	}
}

func TestMeasureSelf(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("memory of processes is read on Linux only")
	}
	const size = 64 << 20
	// Not of Go's heap: the race detector keeps books about that, in memory of its own.
	block, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(block) }()
	before, err := measure(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	after, err := measure(os.Getpid())
	if grown := after.pss - before.pss; err != nil || grown < size*9/10 || grown > size*5/4 {
		t.Errorf("%v; grown by %d bytes of %d", err, grown, size)
	}
}

func TestParsePSS(t *testing.T) {
	got, err := parsePSS([]byte("5621-7fff ---p 00000000 00:00 0  [rollup]\nRss:    1752 kB\nPss:     394 kB\nPss_Dirty:  112 kB\n"))
	if err != nil || got != 394<<10 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parsePSS([]byte("Rss: 1 kB\n")); err == nil {
		t.Error("no error without a line Pss")
	}
}

func TestParseParent(t *testing.T) {
	got, err := parseParent("42 (a) strange (name) S 7 42 42 0 -1")
	if err != nil || got != 7 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := parseParent("42 (cut) S"); err == nil {
		t.Error("no error for a line that was cut")
	}
}

func TestSumMetric(t *testing.T) {
	const text = "# TYPE a_total counter\na_total{x=\"1 2\"} 3\na_total{x=\"2\"} 4.5\na_total_more 100\nb 1\n"
	for name, want := range map[string]float64{"a_total": 7.5, "b": 1} {
		if got, err := sumMetric(strings.NewReader(text), name); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", name, got, err, want)
		}
	}
	if _, err := sumMetric(strings.NewReader(text), "c"); err == nil {
		t.Error("no error for a metric that is not there")
	}
}

func TestParseMachineTime(t *testing.T) {
	got, err := parseMachineTime("cpu  100 20 300 5000 40 5 6 7 99 99\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
	if want := 4380 * time.Millisecond; got != want || err != nil {
		t.Errorf("%v, %v; want %v, without what was idle, waited for disks, or is a guest's and counted already", got, err, want)
	}
	for _, odd := range []string{"", "cpu 1 2 3\n", "intr 1 2 3 4 5 6 7 8 9\n", "cpu  1 x 3 4 5 6 7 8 9\n"} {
		if _, err := parseMachineTime(odd); err == nil {
			t.Errorf("%q was read", odd)
		}
	}
}

// What was not measured, or has nobody to be compared with, is no must, met or not.
func TestMustsOfAPart(t *testing.T) {
	row := func(name string, p99 float64) ProxyRow {
		return ProxyRow{contender: contender{Name: name}, Median: ProxyRound{Paced: LoadRound{P50: 100, P99: p99}}}
	}
	r := ProxiesReport{Config: ProxiesConfig{Only: []Figure{FigurePaced, FigureIdle}}, Rows: []ProxyRow{row(edgeName, 300), row("nginx", 200)}}
	var got []string
	for _, m := range r.check() {
		got = append(got, m.String())
	}
	if len(got) != 3 || !strings.HasPrefix(got[0], "MET") || !strings.HasPrefix(got[1], "MET") || !strings.HasPrefix(got[2], "NOT MET") {
		t.Errorf("%q; want the bytes of an idle session, p50, and p99, which is not met", got)
	}
}
