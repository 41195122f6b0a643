package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// usage is what processes have used of the machine.
type usage struct {
	cpu time.Duration // user and system, since they started
	pss int64         // bytes: private memory, and of what is shared with other processes this one's part
}

// measure adds up the usage of the processes and of their children.
func measure(pids ...int) (usage, error) {
	var sum usage
	tree, err := withChildren(pids)
	if err != nil {
		return sum, err
	}
	for _, pid := range tree {
		cpu, err := cpuTime(pid)
		if err != nil {
			return sum, err
		}
		pss, err := proportionalSet(pid)
		if err != nil {
			return sum, err
		}
		sum.cpu += cpu
		sum.pss += pss
	}
	return sum, nil
}

// cpuOf is measure without the memory, which takes the kernel much longer to count.
func cpuOf(pids ...int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		cpu, err := cpuTime(pid)
		if err != nil {
			return 0, err
		}
		sum += cpu
	}
	return sum, nil
}

// settled measures the processes until their memory has come to rest: what they use for a short while only, and give
// back, is no cost of an idle session. The last state counts if it does not come to rest in time.
func settled(ctx context.Context, limit time.Duration, pids ...int) (usage, error) {
	const (
		every = 100 * time.Millisecond
		still = 5       // measurements in a row without a change
		small = 1 << 15 // bytes that are no change
	)
	last, err := measure(pids...)
	same := 0
	for deadline := time.Now().Add(limit); err == nil && same < still && time.Now().Before(deadline); {
		if err := pause(ctx, every); err != nil {
			return last, err
		}
		var now usage
		now, err = measure(pids...)
		if diff := now.pss - last.pss; diff > small || diff < -small {
			same = 0
			last = now
			continue
		}
		same++
		last.cpu = now.cpu
	}
	return last, err
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// proportionalSet reads the PSS, in bytes.
func proportionalSet(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return parsePSS(data)
}

func parsePSS(rollup []byte) (int64, error) {
	for line := range bytes.Lines(rollup) {
		rest, found := bytes.CutPrefix(line, []byte("Pss:"))
		if !found {
			continue
		}
		kib, err := strconv.ParseInt(string(bytes.TrimSpace(bytes.TrimSuffix(bytes.TrimSpace(rest), []byte("kB")))), 10, 64)
		return kib << 10, err
	}
	return 0, errors.New("smaps_rollup has no line Pss")
}

// kernelBytes is what the kernel holds of the machine's memory for itself: its objects (sockets, files, watches) and tables of pages.
func kernelBytes() (int64, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	sum, found := int64(0), 0
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != "Slab" && name != "KernelStack" && name != "PageTables" {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/meminfo: %w", err)
		}
		sum += kib << 10
		found++
	}
	if found != 3 {
		return 0, errors.New("/proc/meminfo lacks Slab, KernelStack or PageTables")
	}
	return sum, nil
}

// machineTime is the time that all processors together have spent on something since the machine came up, what a host has taken away included,
// in hundredths of a second: see proc_stat(5).
func machineTime() (time.Duration, error) {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	return parseMachineTime(string(data))
}

func parseMachineTime(stat string) (time.Duration, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var sum time.Duration
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal; not idle and iowait
		ticks, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		sum += time.Duration(ticks) * time.Second / 100
	}
	return sum, nil
}

// parentOf reads who started a process, from the fourth field of /proc/PID/stat, see proc_pid_stat(5).
func parentOf(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseParent(string(data))
}

func parseParent(stat string) (int, error) {
	// The second field is the command's name in parentheses, which may hold blanks and parentheses.
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 2 {
		return 0, fmt.Errorf("no parent in %q", stat)
	}
	return strconv.Atoi(fields[1])
}

// withChildren adds the processes' descendants.
func withChildren(pids []int) ([]int, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	children := make(map[int][]int)
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		parent, err := parentOf(pid)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // it has just ended
		}
		if err != nil {
			return nil, err
		}
		children[parent] = append(children[parent], pid)
	}
	var tree []int
	for queue := pids; len(queue) > 0; queue = queue[1:] {
		tree = append(tree, queue[0])
		queue = append(queue, children[queue[0]]...)
	}
	return tree, nil
}
