package bench

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"time"
)

// Machine is where and when figures were taken: they compare within a run, not between machines.
type Machine struct {
	When       time.Time `json:"when"`
	Processors int       `json:"processors"`
	Kernel     string    `json:"kernel"`
	Go         string    `json:"go"`
	Load       string    `json:"load_average"` // at the start: what else the machine did
	Binary     string    `json:"binary"`
}

func thisMachine(env Env) Machine {
	read := func(path string) string {
		data, _ := os.ReadFile(path) // empty where a system has no such file
		return strings.TrimSpace(string(data))
	}
	return Machine{
		When:       time.Now().UTC().Truncate(time.Second),
		Processors: runtime.NumCPU(),
		Kernel:     read("/proc/sys/kernel/osrelease"),
		Go:         runtime.Version(),
		Load:       read("/proc/loadavg"),
		Binary:     env.Binary,
	}
}

// String tells what bears on the figures.
func (m Machine) String() string {
	load, _, _ := strings.Cut(m.Load, " ")
	return fmt.Sprintf("%s, %d processors, kernel %s, %s; load average at the start %s; everything on loopback",
		m.When.Format(time.RFC3339), m.Processors, m.Kernel, m.Go, load)
}
