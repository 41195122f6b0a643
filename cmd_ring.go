package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/hashring"
)

const ringTimeout = 5 * time.Second // for the members to become known

func newRing(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ring",
		Short: "Show who owns which users",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			if !cmd.Flags().Changed("log-level") {
				g.logLevel = "warn" // the ring is what one wants to see
			}
		},
	}
	cmd.AddCommand(newRingOwner(g), newRingShow(g), newRingDiff(g), newRingSimulate(g), newRingBury(g))
	return cmd
}

func newRingOwner(g *global) *cobra.Command {
	var r reach
	cmd := &cobra.Command{
		Use:   "owner USER...",
		Short: "Name the backend that owns each user",
		Example: `  selvedge ring owner alice bob --consul 127.0.0.1:8500
  selvedge ring owner alice --backends b1=10.0.0.1:9000,b2=10.0.0.2:9000`,
		Args: someArgs,
		RunE: func(cmd *cobra.Command, users []string) error {
			asJSON, err := g.json()
			if err != nil {
				return err
			}
			view, ring, err := r.ring(cmd.Context(), g)
			if err != nil {
				return err
			}
			out := newPrinter(cmd.OutOrStdout(), asJSON)
			for _, user := range users {
				owner := ring.Owner(user)
				text := owner
				if len(users) > 1 {
					text = user + " " + owner
				}
				if err := out.line(text, map[string]any{"user": user, "backend": owner, "ring": view.Digest}); err != nil {
					return err
				}
			}
			return nil
		},
	}
	r.bind(cmd.Flags())
	return cmd
}

func newRingShow(g *global) *cobra.Command {
	var r reach
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the members and the share of users that each owns",
		Example: `  selvedge ring show --consul 127.0.0.1:8500 --service chat
  selvedge ring show --via 127.0.0.1:8081 --output json > before.json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := g.json()
			if err != nil {
				return err
			}
			view, ring, err := r.ring(cmd.Context(), g)
			if err != nil {
				return err
			}
			return printRing(newPrinter(cmd.OutOrStdout(), asJSON), view, ring)
		},
	}
	r.bind(cmd.Flags())
	return cmd
}

// ring asks who is there and makes the ring that they make, as everybody does.
func (r *reach) ring(ctx context.Context, g *global) (*pushv1.ShowResponse, *hashring.Ring, error) {
	log, err := g.logger()
	if err != nil {
		return nil, nil, err
	}
	s, err := r.open(log)
	if err != nil {
		return nil, nil, err
	}
	defer s.Close()
	ctx, cancel := context.WithTimeout(ctx, ringTimeout)
	defer cancel()
	view, err := s.Ring(ctx)
	if err != nil {
		return nil, nil, r.hinted(err)
	}
	var members []hashring.Member
	for _, m := range view.Members {
		if m.InRing {
			members = append(members, hashring.Member{ID: m.Id, Weight: int(m.Weight)})
		}
	}
	secret, err := r.ringSecret()
	if err != nil {
		return nil, nil, err
	}
	ring, err := newRingOf(members, secret)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case ring.Len() == 0:
		return nil, nil, errors.New("no member of the service is on the ring; is its name right, and is a backend up?")
	case ring.Digest() != view.Digest:
		return nil, nil, fmt.Errorf("the members make ring %s here and %s there; give the services.NAME.ring_secret_file that they have, if they have one: "+
			"--ring-secret-file FILE. Else see whether both are of the same version", ring.Digest(), view.Digest)
	}
	return view, ring, nil
}

// newRingOf makes a ring, with a secret where it has one.
func newRingOf(members []hashring.Member, secret []byte) (*hashring.Ring, error) {
	if secret == nil {
		return hashring.New(members)
	}
	return hashring.New(members, hashring.WithSecret(secret))
}

// ringPrint is a ring as it is printed, and as `ring diff` reads it.
type ringPrint struct {
	Service string     `json:"service"`
	Ring    string     `json:"ring"` // its digest
	Members []ringLine `json:"members"`
}

type ringLine struct {
	ID     string  `json:"id"`
	Addr   string  `json:"addr"`
	RPC    string  `json:"rpc,omitempty"`
	Weight uint32  `json:"weight"`
	State  string  `json:"state"`
	Health string  `json:"health"`
	InRing bool    `json:"in_ring"`
	Share  float64 `json:"share"` // of all users, 0 to 1
}

func printRing(out *printer, view *pushv1.ShowResponse, ring *hashring.Ring) error {
	lines := make([]ringLine, len(view.Members))
	for i, m := range view.Members {
		lines[i] = ringLine{m.Id, m.Addr, m.Rpc, m.Weight, m.State, m.Health, m.InRing, ring.Share(m.Id)}
	}
	if out.asJSON {
		return out.line("", ringPrint{view.Service, view.Digest, lines})
	}
	var text strings.Builder
	fmt.Fprintf(&text, "service %s, ring %s, %s on it\n", view.Service, view.Digest, count(ring.Len(), "member"))
	width, most := len("MEMBER"), 0.0
	for _, l := range lines {
		width, most = max(width, utf8.RuneCountInString(l.ID)), max(most, l.Share)
	}
	fmt.Fprintf(&text, "%-*s  %7s  %-20s  %6s  %-8s  %s", width, "MEMBER", "SHARE", "", "WEIGHT", "STATE", "ADDRESS")
	for _, l := range lines {
		state := l.State
		if l.Health != "passing" {
			state = l.Health
		}
		bar := strings.Repeat("█", int(l.Share/most*20+0.5))
		fmt.Fprintf(&text, "\n%-*s  %6.2f%%  %-20s  %6d  %-8s  %s", width, l.ID, 100*l.Share, bar, l.Weight, state, l.Addr)
	}
	return out.line(text.String(), nil)
}
