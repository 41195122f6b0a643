package discovery

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strconv"

	"github.com/hashicorp/consul/api"
)

// Keys of a member's service meta in Consul.
const (
	metaID          = "selvedge-id"
	metaRPC         = "selvedge-rpc"
	metaIncarnation = "selvedge-incarnation"
	metaState       = "selvedge-state"
	metaPublicURL   = "selvedge-public-url"
)

// choose makes the members of a service from Consul's health view of all its instances, whatever their order: one member per id,
// sorted. An instance that cannot be reached by what it says of itself is left out; what else is garbage is left out of the
// member or clamped. problems says so, one line each, in a stable order.
func choose(entries []*api.ServiceEntry) (members []Member, problems []string) {
	for _, e := range entries {
		if e == nil || e.Service == nil || e.Node == nil {
			problems = append(problems, "an instance without a node or a service: left out")
			continue
		}
		name := e.Node.Node + "/" + e.Service.ID
		report := func(format string, args ...any) {
			problems = append(problems, fmt.Sprintf("%s: ", clip(name))+fmt.Sprintf(format, args...))
		}
		if m, ok := memberOf(e, name, report); ok {
			members = append(members, m)
		}
	}
	slices.SortFunc(members, byPrecedence)
	kept := members[:0]
	for _, m := range members {
		last := len(kept) - 1
		if last < 0 || kept[last].ID != m.ID {
			kept = append(kept, m)
		} else if kept[last].Incarnation == m.Incarnation && kept[last].Addr != m.Addr {
			problems = append(problems, fmt.Sprintf("%s is the id of both %s and %s; taking %[2]s: give each a --id of its own",
				clip(m.ID), kept[last].Addr, m.Addr))
		}
	}
	slices.Sort(problems)
	return kept, problems
}

// byPrecedence sorts by id and puts first among equal ids the one that counts: the higher incarnation, since the other is its dead
// predecessor; where they claim the same, the healthier one; then whichever, but everywhere the same.
func byPrecedence(a, b Member) int {
	return cmp.Or(
		cmp.Compare(a.ID, b.ID),
		-cmp.Compare(a.Incarnation, b.Incarnation),
		cmp.Compare(a.Health, b.Health),
		cmp.Compare(a.State, b.State),
		cmp.Compare(a.Addr, b.Addr),
		cmp.Compare(a.RPCAddr, b.RPCAddr),
		cmp.Compare(a.PublicURL, b.PublicURL),
		cmp.Compare(a.Weight, b.Weight),
	)
}

// memberOf makes the member of one instance, which is called name in Consul's terms.
func memberOf(e *api.ServiceEntry, name string, report func(format string, args ...any)) (m Member, ok bool) {
	meta := e.Service.Meta
	m = Member{ID: name, Health: healthOf(e.Checks)}
	if id := meta[metaID]; id != "" {
		m.ID = id
	}
	if err := validateID(m.ID); err != nil {
		report("%v: left out", err)
		return m, false
	}

	host := cmp.Or(e.Service.Address, e.Node.Address)
	switch port := e.Service.Port; {
	case host == "":
		report("no address: left out")
		return m, false
	case port < 1 || port > 65535:
		report("port %d is not one that can be connected to: left out; register the service with its port", port)
		return m, false
	default:
		m.Addr = joinAddr(host, port)
	}

	if text, given := meta[metaIncarnation]; given {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			report("%s %q is not a number: taken for 0", metaIncarnation, clip(text))
		}
		if err == nil {
			m.Incarnation = n
		}
	}
	if text, given := meta[metaState]; given {
		state, err := ParseState(text)
		if err != nil {
			report("%v: taken for joining", err)
			state = Joining // whatever a later release means by it, it does not say that it serves
		}
		m.State = state
	}
	if m.State == Serving && e.Checks.AggregatedStatus() == api.HealthMaint {
		m.State = Draining // an operator's word and not a check's: no panic may keep it in the ring
	}
	if text := meta[metaRPC]; text != "" {
		if rpcHost, port, err := splitAddr(text); err != nil {
			report("%s %v: cannot be pushed to", metaRPC, err)
		} else {
			m.RPCAddr = joinAddr(cmp.Or(rpcHost, host), port)
		}
	}
	if text := meta[metaPublicURL]; text != "" {
		if !isPublicURL(text) {
			report("%s %q is not a URL with scheme and host: taken for none", metaPublicURL, clip(text))
		} else {
			m.PublicURL = text
		}
	}

	weight := e.Service.Weights.Passing
	if m.Health == Warning {
		weight = e.Service.Weights.Warning
	}
	if m.Weight = min(max(weight, 0), MaxWeight); m.Weight != weight {
		report("weight %d is not within 0 and %d: taken for %d", weight, MaxWeight, m.Weight)
	}
	return m, true
}

// healthOf sums up the checks of an instance and its node. Maintenance, and words that Consul does not have today, are critical:
// nobody who is in doubt gets users.
func healthOf(checks api.HealthChecks) Health {
	switch checks.AggregatedStatus() {
	case api.HealthPassing:
		return Passing
	case api.HealthWarning:
		return Warning
	}
	return Critical
}

func isPublicURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && u.Scheme != "" && u.Host != ""
}
