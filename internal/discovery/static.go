package discovery

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Static is a list of members that never changes.
type Static struct {
	members []Member // sorted by ID
}

// NewStatic returns the source of the members in list: ID=HOST:PORT[/RPCPORT][*WEIGHT], separated by commas, IPv6 addresses in
// brackets, blanks around an entry allowed. RPCPORT is the push service's on the same host; without it the member can be
// routed to, not pushed to. ID=unix:/PATH[*WEIGHT] is a member behind a socket of this host. The weight is 1 where none is given. An error names the entry and what is wrong with it.
func NewStatic(list string) (*Static, error) {
	var members []Member
	seen := make(map[string]int)
	for i, entry := range strings.Split(list, ",") {
		entry = strings.TrimSpace(entry)
		m, err := parseBackend(entry)
		if err == nil && seen[m.ID] > 0 {
			err = fmt.Errorf("id %q stands in entry %d already", m.ID, seen[m.ID])
		}
		if err != nil {
			return nil, fmt.Errorf("backends, entry %d %q: %w; write ID=HOST:PORT[/RPCPORT][*WEIGHT] or ID=unix:/PATH[*WEIGHT]", i+1, clip(entry), err)
		}
		seen[m.ID] = i + 1
		members = append(members, m)
	}
	sortMembers(members)
	return &Static{members: members}, nil
}

// Watch reports the members once and waits for ctx's end. Every service has them.
func (s *Static) Watch(ctx context.Context, _ string, update func([]Member)) error {
	update(slices.Clone(s.members))
	<-ctx.Done()
	return ctx.Err()
}

// Read returns the members. Every service has them.
func (s *Static) Read(context.Context, string) ([]Member, error) { return slices.Clone(s.members), nil }

func parseBackend(entry string) (Member, error) {
	m := Member{Weight: 1}
	if entry == "" {
		return m, errors.New("it is empty")
	}
	id, rest, found := strings.Cut(entry, "=")
	if !found {
		return m, errors.New("no = after the id")
	}
	if m.ID = id; validateID(id) != nil {
		return m, validateID(id)
	}
	addr, weight, found := strings.Cut(rest, "*")
	if found {
		w, err := strconv.Atoi(weight)
		if err != nil {
			return m, fmt.Errorf("weight %q is not a number", clip(weight))
		}
		if m.Weight = w; validateWeight(w) != nil {
			return m, validateWeight(w)
		}
	}
	if IsSocket(addr) {
		m.Addr = addr
		return m, validateSocket(addr)
	}
	addr, rpcPort, found := strings.Cut(addr, "/")
	host, port, err := splitAddr(addr)
	if err != nil {
		return m, err
	}
	if host == "" {
		return m, fmt.Errorf("%q has no host", clip(addr))
	}
	m.Addr = joinAddr(host, port)
	if found {
		p, err := parsePort(rpcPort)
		if err != nil {
			return m, fmt.Errorf("RPC %w", err)
		}
		m.RPCAddr = joinAddr(host, p)
	}
	return m, nil
}
