package edge

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/selvedge/selvedge/internal/config"
)

// Admission says who may come in, and how many. The zero value lets in whoever comes.
type Admission struct {
	PerUser           int      // sessions of one user of one service; 0: no limit. More are refused with 429
	PerAddress        int      // sessions from one IPv4 address, or one IPv6 network of 64 bits; 0: no limit. More are refused with 429
	UpgradesPerSecond float64  // upgrades let in, a hundredth of them at once; 0: no limit. More wait up to a second, then are refused with 503
	Origins           []string // Origin fields of upgrades, like https://app.example.com or https://*.example.com; empty: any. Others are refused with 403

	// Networks of clients, for upgrades and plain HTTP. Who is in Deny, or not in Allow where that is not empty, is refused with 403.
	Allow, Deny []netip.Prefix
}

func (a Admission) check() error {
	var errs []error
	wrong := func(key, format string, args ...any) { errs = append(errs, config.Wrongf(key, format, args...)) }
	if a.PerUser < 0 {
		wrong("per_user", "%d: want 0 (no limit) or more", a.PerUser)
	}
	if a.PerAddress < 0 {
		wrong("per_ip", "%d: want 0 (no limit) or more", a.PerAddress)
	}
	if !(a.UpgradesPerSecond >= 0 && a.UpgradesPerSecond <= math.MaxInt32) {
		wrong("upgrades_per_second", "%v: want 0 (no limit) or more", a.UpgradesPerSecond)
	}
	for i, o := range a.Origins {
		if _, err := parseOrigin(o); err != nil {
			errs = append(errs, config.Under(fmt.Sprintf("origins[%d]", i), err))
		}
	}
	for key, list := range map[string][]netip.Prefix{"allow": a.Allow, "deny": a.Deny} {
		for i, p := range list {
			if !p.IsValid() {
				wrong(fmt.Sprintf("%s[%d]", key, i), "not a network, like 192.0.2.0/24")
			}
		}
	}
	return errors.Join(errs...)
}

// gate is an Admission ready for use.
type gate struct {
	perUser, perAddress int
	origins             []origin
	allow, deny         []netip.Prefix
}

func newGate(a Admission) (gate, error) {
	g := gate{perUser: a.PerUser, perAddress: a.PerAddress, allow: a.Allow, deny: a.Deny}
	for _, text := range a.Origins {
		o, err := parseOrigin(text)
		if err != nil {
			return g, err
		}
		g.origins = append(g.origins, o)
	}
	return g, nil
}

// admits tells whether a client may ask at all. One without an address is on a socket of this host, which no network holds.
func (g *gate) admits(client netip.Addr) bool {
	within := func(networks []netip.Prefix) bool {
		return slices.ContainsFunc(networks, func(p netip.Prefix) bool { return p.Contains(client) })
	}
	return !within(g.deny) && (len(g.allow) == 0 || within(g.allow))
}

// allowsOrigin tells whether pages of an origin may open sessions. The fields are those of a request: none at all is no browser's, which
// this does not protect from; two say that somebody tampers.
func (g *gate) allowsOrigin(fields []string) bool {
	if len(g.origins) == 0 || len(fields) == 0 {
		return true
	}
	if len(fields) > 1 {
		return false
	}
	asks, err := parseOrigin(fields[0])
	return err == nil && !asks.below && slices.ContainsFunc(g.origins, func(o origin) bool { return o.covers(asks) })
}

// origin is a scheme, a host and a port, RFC 6454; with below, all names under the host and not the host itself.
type origin struct {
	scheme, host, port string
	below              bool
}

func parseOrigin(text string) (origin, error) {
	bad := fmt.Errorf("%q: want an origin like https://app.example.com, https://*.example.com or http://localhost:3000, without a path", text)
	scheme, rest, found := strings.Cut(text, "://")
	if !found || scheme == "" || rest == "" {
		return origin{}, bad
	}
	o := origin{scheme: strings.ToLower(scheme)}
	if suffix, wild := strings.CutPrefix(rest, "*."); wild {
		o.below, rest = true, suffix
	}
	u, err := url.Parse("x://" + rest)
	if err != nil || u.Host != rest || u.Hostname() == "" || u.User != nil || strings.ContainsAny(rest, "*, ") {
		return origin{}, bad
	}
	o.host, o.port = strings.ToLower(u.Hostname()), u.Port()
	if o.port == "" {
		o.port = map[string]string{"http": "80", "https": "443"}[o.scheme]
	}
	return o, nil
}

func (o origin) covers(asks origin) bool {
	if o.scheme != asks.scheme || o.port != asks.port {
		return false
	}
	if o.below {
		return len(asks.host) > len(o.host)+1 && strings.HasSuffix(asks.host, "."+o.host)
	}
	return o.host == asks.host
}

// claim is what a session counts towards where there are limits. The zero value counts towards none.
type claim struct {
	user    string       // with its service; "": none
	network netip.Prefix // zero: none
}

// claim counts a session that is to be, whose place the caller holds. With a refusal nothing is counted, and the place is still held.
func (s *sessions) claim(g *gate, service, user string, client netip.Addr) (claim, *refusal) {
	var c claim
	if g.perUser > 0 && user != "" {
		c.user = service + "\x00" + user // which no service's name holds
	}
	if g.perAddress > 0 && client.IsValid() {
		bits := client.BitLen()
		if client.Is6() {
			bits = 64 // a household's, or less: who has one has 2^64 addresses
		}
		c.network = netip.PrefixFrom(client, bits).Masked()
	}
	if c == (claim{}) {
		return c, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case c.user != "" && s.users[c.user] >= g.perUser:
		return claim{}, refuseUserFull
	case c.network.IsValid() && s.networks[c.network] >= g.perAddress:
		return claim{}, refuseAddressFull
	}
	if c.user != "" {
		s.users[c.user]++
	}
	if c.network.IsValid() {
		s.networks[c.network]++
	}
	return c, nil
}

// disclaim takes c back, under mu.
func (s *sessions) disclaim(c claim) {
	if c.user != "" {
		if s.users[c.user]--; s.users[c.user] == 0 {
			delete(s.users, c.user)
		}
	}
	if c.network.IsValid() {
		if s.networks[c.network]--; s.networks[c.network] == 0 {
			delete(s.networks, c.network)
		}
	}
}

var (
	refuseDenied      = &refusal{http.StatusForbidden, denied, "this address may not come in here", true}
	refuseOrigin      = &refusal{http.StatusForbidden, badOrigin, "pages of this origin may not open sessions here", true}
	refuseUserFull    = &refusal{http.StatusTooManyRequests, userFull, "this user has as many sessions as one may have", true}
	refuseAddressFull = &refusal{http.StatusTooManyRequests, addressFull, "this address has as many sessions as one may have", true}
	refusePaced       = &refusal{http.StatusServiceUnavailable, paced, "more sessions begin than this edge lets in at a time; try again later", true}
)
