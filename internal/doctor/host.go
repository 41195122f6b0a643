package doctor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	wantDescriptors  = 65536
	leastDescriptors = 4096
	wantPorts        = 16384 // of which one member's address takes one per session
	leastQueue       = 1024
	edgePipes        = 256 // that an edge has open at most; see tunnel.MaxPipes
	pipePages        = 16  // of a pipe of default size
)

// host is this one.
func host() env {
	return env{
		sysctl: func(name string) ([]int, error) {
			text, err := os.ReadFile("/proc/sys/" + strings.ReplaceAll(name, ".", "/"))
			if err != nil {
				return nil, err
			}
			var values []int
			for field := range strings.FieldsSeq(string(text)) {
				v, err := strconv.Atoi(field)
				if err != nil {
					return nil, err
				}
				values = append(values, v)
			}
			return values, nil
		},
		descriptors: openFiles,
		root:        os.Geteuid() == 0,
		now:         time.Now,
	}
}

// sessions is how many the settings say that an edge holds, or a backend; 0: as many as it can.
func (e *examination) sessions() int {
	sessions := 0
	if e.forEdge() {
		sessions = e.Settings.Limits.Sessions
	}
	if e.forBackend() {
		sessions = max(sessions, e.Settings.Backend.Limits.Sessions)
	}
	return sessions
}

func (e *examination) descriptorLimit() {
	const check = "descriptors"
	limit, err := e.descriptors()
	if err != nil {
		e.found(check, Skipped, err.Error(), "")
		return
	}
	if limit == 0 {
		e.good(check, "no limit of open files")
		return
	}
	perSession, who := 2, "an edge"
	if !e.forEdge() {
		perSession, who = 1, "a backend"
	}
	room := (limit - max(64, limit/8)) / perSession
	text := fmt.Sprintf("%d open files are allowed here: %s has room for %d sessions", limit, who, room)
	mend := "ulimit -n %d, or LimitNOFILE=%[1]d in the systemd unit"
	switch want := e.sessions(); {
	case want > room:
		e.found(check, Bad, fmt.Sprintf("%s, and the limit of sessions is %d", text, want), fmt.Sprintf(mend, (want+64)*perSession*8/7+8))
	case want == 0 && limit < leastDescriptors:
		e.found(check, Bad, text, fmt.Sprintf(mend, wantDescriptors))
	case want == 0 && limit < wantDescriptors:
		e.found(check, Warning, text, fmt.Sprintf(mend, wantDescriptors))
	default:
		e.good(check, text)
	}
}

func (e *examination) portRange() {
	const check, name = "ports", "net.ipv4.ip_local_port_range"
	bounds, err := e.sysctl(name)
	if err != nil || len(bounds) != 2 {
		e.found(check, Skipped, fmt.Sprintf("%s cannot be read: %v", name, err), "")
		return
	}
	first, last := bounds[0], bounds[1]
	text := fmt.Sprintf("%s is %d to %d: %d sessions from one address of this host to one member", name, first, last, last-first+1)
	if last-first+1 < wantPorts {
		e.found(check, Bad, text, "sysctl -w "+name+"='10240 65535', or more addresses in services.NAME.source_addresses")
	} else {
		e.good(check, text)
	}
	for _, l := range e.listeners() {
		_, text, err := net.SplitHostPort(l.addr)
		port, err2 := strconv.Atoi(text)
		if err == nil && err2 == nil && port >= first && port <= last && !e.reserved(port) {
			e.found(check, Warning, fmt.Sprintf("%s listens on port %d, which an outgoing connection may have taken when it starts", l.key, port),
				fmt.Sprintf("sysctl -w net.ipv4.ip_local_reserved_ports=%d (add to what is there), or choose one below %d", port, first))
		}
	}
}

// listener is one that the settings name.
type listener struct{ key, addr string }

func (e *examination) listeners() []listener {
	s := e.Settings
	all := []listener{{"admin.addr", s.Admin.Addr}}
	for i, l := range s.Listen {
		all = append(all, listener{fmt.Sprintf("listen[%d].addr", i), l.Addr})
	}
	return append(all, listener{"backend.listen", s.Backend.Listen}, listener{"backend.rpc.addr", s.Backend.RPC.Addr})
}

// reserved tells whether the kernel keeps a port from outgoing connections. The list is like 9000,9100-9110.
func (e *examination) reserved(port int) bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_reserved_ports")
	if err != nil {
		return false
	}
	for part := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err == nil && err2 == nil && a <= port && port <= b {
			return true
		}
	}
	return false
}

func (e *examination) acceptQueue() {
	const check, name = "somaxconn", "net.core.somaxconn"
	value, err := e.sysctl(name)
	if err != nil || len(value) != 1 {
		e.found(check, Skipped, fmt.Sprintf("%s cannot be read: %v", name, err), "")
		return
	}
	text := fmt.Sprintf("%s is %d: so many connections may wait to be accepted when all clients come back at once", name, value[0])
	if value[0] < leastQueue {
		e.found(check, Bad, text, "sysctl -w "+name+"=4096, and restart: a listener keeps what was there when it was opened")
		return
	}
	e.good(check, text)
}

func (e *examination) pipeLimit() {
	const check, soft, hard = "pipes", "fs.pipe-user-pages-soft", "fs.pipe-user-pages-hard"
	if !e.forEdge() {
		return
	}
	if e.Settings.Engine == "copy" {
		e.good(check, "engine copy takes none")
		return
	}
	for _, name := range []string{soft, hard} {
		value, err := e.sysctl(name)
		switch {
		case err != nil || len(value) != 1:
			e.found(check, Skipped, fmt.Sprintf("%s cannot be read: %v", name, err), "")
		case value[0] == 0:
			e.good(check, name+" is off")
		case value[0] < edgePipes*pipePages && e.root:
			e.found(check, Warning, fmt.Sprintf("%s is %d pages: nothing to root, as which this runs, but too few for an edge under a user of its own", name, value[0]),
				fmt.Sprintf("sysctl -w %s=16384", name))
		case value[0] < edgePipes*pipePages:
			e.found(check, Bad, fmt.Sprintf("%s is %d pages, and an edge splices through up to %d pipes of %d: it will move bytes in small pieces, or copy them", name,
				value[0], edgePipes, pipePages), fmt.Sprintf("sysctl -w %s=16384, or engine: copy", name))
		default:
			e.good(check, fmt.Sprintf("%s is %d pages: enough for an edge", name, value[0]))
		}
	}
}
