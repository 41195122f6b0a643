// Command ring holds package hashring against what others use, in one run and one table, and says which of the figures that
// it has to reach it reaches:
//
//	go run -C internal/bench/ring . [-short] [-out DIR]
//
// It is a module of its own, so that none of the packages that it measures becomes a dependency of the product. Go packages
// are measured as they are. nginx, HAProxy, Envoy and Maglev are no Go packages; of them contenders.go and points.go have
// the parameters and the rule by which they choose, with one hash for all.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

func main() {
	short := flag.Bool("short", false, "a few seconds, to see that it works; its figures are worth nothing")
	out := flag.String("out", "../../../bench/out", "`DIR` for ring.json and ring.svg")
	flag.Parse()
	if err := run(os.Stdout, os.Stderr, *short, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bench ring:", err)
		os.Exit(1)
	}
}

// report is what ring.json holds.
type report struct {
	Go         string    `json:"go"`
	Platform   string    `json:"platform"`
	CPUs       int       `json:"cpus"`
	Short      bool      `json:"short"`
	LoadBefore string    `json:"load_before"` // load averages of 1, 5 and 15 minutes; "" where the system does not tell
	LoadAfter  string    `json:"load_after"`
	Seconds    float64   `json:"seconds"`
	Contenders []figures `json:"contenders"` // ours first
	Musts      []must    `json:"musts"`
}

func run(stdout, progress io.Writer, short bool, dir string) error {
	size := fullSize
	if short {
		size = shortSize
	}
	r := report{Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(), Short: short, LoadBefore: loadAverage()}
	start := time.Now()
	r.Contenders = measure(contenders, size, func(what string) {
		fmt.Fprintf(progress, "%4.0f s  %s\n", time.Since(start).Seconds(), what)
	})
	large, err := largeRing(size.large)
	if err != nil {
		return err
	}
	r.Musts = judge(r.Contenders, large)
	r.Seconds = time.Since(start).Seconds()
	r.LoadAfter = loadAverage()

	if _, err := io.WriteString(stdout, r.text()); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "ring.json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "ring.svg"), []byte(r.svg()), 0o644)
}

// loadAverage tells how busy the machine is, where Linux says so.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return ""
	}
	return strings.Join(strings.Fields(string(data))[:3], " ")
}
