package discovery

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// State is what a member says of itself; it travels as `selvedge-state` in Consul's service meta.
type State uint8

const (
	Serving  State = iota // takes sessions and pushes; what a service that is not ours is taken for
	Joining               // registered, not yet greeted by its peers: out of the ring, known
	Draining              // leaving: out of the ring, known, takes no new session
)

// String returns the word that stands for s in Consul's meta and in a registry file.
func (s State) String() string {
	switch s {
	case Serving:
		return "serving"
	case Joining:
		return "joining"
	case Draining:
		return "draining"
	}
	return "state(" + strconv.Itoa(int(s)) + ")"
}

// ParseState is the inverse of [State.String].
func ParseState(s string) (State, error) {
	switch s {
	case "serving":
		return Serving, nil
	case "joining":
		return Joining, nil
	case "draining":
		return Draining, nil
	}
	return 0, fmt.Errorf("state %q is none of serving, joining, draining", clip(s))
}

// Health is the registry's verdict over all checks of an instance.
type Health uint8

const (
	Passing Health = iota
	Warning
	Critical
)

// String returns Consul's word for h.
func (h Health) String() string {
	switch h {
	case Passing:
		return "passing"
	case Warning:
		return "warning"
	case Critical:
		return "critical"
	}
	return "health(" + strconv.Itoa(int(h)) + ")"
}

// Override is what a watch decides about a member against the registry's word on its health; DESIGN.md says when.
type Override uint8

const (
	NotOverridden Override = iota // its health decides
	Kept                          // critical and in the ring all the same: too many are critical for that to be believed
	Damped                        // healthy and out of the ring for a while: it has come back too often
)

// String returns the word for o on the operator's page.
func (o Override) String() string {
	switch o {
	case NotOverridden:
		return ""
	case Kept:
		return "kept"
	case Damped:
		return "damped"
	}
	return "override(" + strconv.Itoa(int(o)) + ")"
}

// Member is one instance of a service as a registry knows it. It is a value: sources build new ones instead of changing old.
type Member struct {
	ID          string // `selvedge-id`, or NODE/SERVICE-ID for a service that is not ours
	Incarnation uint64 // Unix nanoseconds at the process's start, larger at each start; 0: not ours
	State       State
	Health      Health
	Addr        string // host:port that takes WebSocket and HTTP connections, or unix:/PATH; see Network
	Name        string // the host name that Addr was looked up from, see [Resolved]; "": Addr is as it was registered
	RPCAddr     string // host:port of the push service; "": can be routed to, not pushed to
	PublicURL   string // for dispatch; "": none
	Weight      int    // 0 to MaxWeight; multiplies the member's points on the ring
	Override    Override
}

// InRing tells whether users may be hashed onto m: serving, of weight 1 or more, and passing or warning, unless Override says otherwise.
func (m Member) InRing() bool {
	return m.wantsUsers() && (m.Health != Critical || m.Override == Kept) && m.Override != Damped
}

// wantsUsers tells whether m would be in the ring if it were healthy: that is its own word, and its operator's.
func (m Member) wantsUsers() bool { return m.State == Serving && m.Weight > 0 }

// HeartbeatTTL is how long Consul waits for a member's sign of life before it calls it critical.
const HeartbeatTTL = 10 * time.Second

// MaxWeight is the largest weight a member can have.
const MaxWeight = 1000

// maxIDBytes bounds an id: ids travel in every call between members and stand in metrics and logs.
const maxIDBytes = 256

// validateID tells what keeps id from being a member's.
func validateID(id string) error {
	switch {
	case id == "":
		return errors.New("the id is empty")
	case len(id) > maxIDBytes:
		return fmt.Errorf("the id has %d bytes, at most %d are allowed", len(id), maxIDBytes)
	case !utf8.ValidString(id):
		return errors.New("the id is not valid UTF-8")
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return errors.New("the id holds a control character")
		}
	}
	return nil
}

// validateWeight tells what is wrong with a weight that a person wrote; what a registry says is clamped instead.
func validateWeight(w int) error {
	if w < 0 || w > MaxWeight {
		return fmt.Errorf("weight %d is not within 0 and %d", w, MaxWeight)
	}
	return nil
}

// splitAddr cuts host:port (IPv6 in brackets) and checks that the port is a number from 1 to 65535. The host may be empty.
func splitAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not HOST:PORT (IPv6 in brackets)", clip(addr))
	}
	for _, r := range host {
		if r <= ' ' || r == 0x7f || r == '/' || r == ',' {
			return "", 0, fmt.Errorf("%q: %q cannot stand in a host name", clip(addr), r)
		}
	}
	if port, err = parsePort(text); err != nil {
		return "", 0, fmt.Errorf("%q: %w", clip(addr), err)
	}
	return host, port, nil
}

func parsePort(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("port %q is not a number from 1 to 65535", clip(s))
	}
	return int(n), nil
}

func joinAddr(host string, port int) string {
	return net.JoinHostPort(host, strconv.Itoa(port))
}

// clip keeps what goes into an error or a log line short.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return s[:most] + "..."
}
