package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/selvedge/selvedge/hashring"
	"github.com/selvedge/selvedge/internal/ringsim"
)

func newRingDiff(g *global) *cobra.Command {
	var d ringDiff
	cmd := &cobra.Command{
		Use:   "diff",
		Short: "Show which share of users moves from whom to whom",
		Long: "Show which share of users moves from whom to whom between two lists of members, or two moments.\n" +
			"A moment is a file that `selvedge ring show --output json` wrote; the side that is not given is the present one,\n" +
			"and is asked for as in `selvedge ring show`.",
		Example: `  selvedge ring diff --from b1=10.0.0.1:9000,b2=10.0.0.2:9000 --to b1=10.0.0.1:9000,b2=10.0.0.2:9000*2
  selvedge ring diff --from-file before.json --to-file after.json --ranges --output json
  selvedge ring diff --from-file before.json --consul 127.0.0.1:8500 --service chat`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return d.run(cmd, g) },
	}
	flags := cmd.Flags()
	d.from.bind(flags, "from", "before")
	d.to.bind(flags, "to", "after")
	flags.BoolVar(&d.ranges, "ranges", false, "also print the ranges of hashes that move, in hexadecimal")
	d.bind(flags)
	return cmd
}

// ringDiff are the flags of `selvedge ring diff`.
type ringDiff struct {
	reach
	from, to ringSide
	ranges   bool
}

// ringSide says where one of two rings comes from: the present where both are empty.
type ringSide struct {
	name, list, file string
}

func (s *ringSide) bind(flags *pflag.FlagSet, name, when string) {
	s.name = name
	flags.StringVar(&s.list, name, "", "`LIST` of members "+when+": ID=HOST:PORT[/RPCPORT][*WEIGHT],...")
	flags.StringVar(&s.file, name+"-file", "", "`FILE` with the ring "+when+", as `ring show --output json` prints it")
}

func (s *ringSide) live() bool { return s.list == "" && s.file == "" }

func (d *ringDiff) run(cmd *cobra.Command, g *global) error {
	asJSON, err := g.json()
	if err != nil {
		return err
	}
	switch reaches := d.via+d.consul+d.backends+d.registry != ""; {
	case d.from.live() && d.to.live():
		return usage(errors.New("nothing to compare with; give --from, --from-file, --to or --to-file"))
	case !d.from.live() && !d.to.live() && reaches:
		return usage(errors.New("both sides are given; leave --via, --consul, --backends and --registry out"))
	}
	from, err := d.side(cmd.Context(), g, d.from)
	if err != nil {
		return err
	}
	to, err := d.side(cmd.Context(), g, d.to)
	if err != nil {
		return err
	}
	return printDiff(newPrinter(cmd.OutOrStdout(), asJSON), from, to, ringsim.Compare(from, to), d.ranges)
}

// side makes one of the two rings.
func (d *ringDiff) side(ctx context.Context, g *global, s ringSide) (ring *hashring.Ring, err error) {
	switch {
	case s.list != "" && s.file != "":
		err = usage(fmt.Errorf("both --%s and --%[1]s-file are given; choose one", s.name))
	case s.file != "":
		if ring, err = d.readRing(s.file); err != nil {
			err = usage(fmt.Errorf("--%s-file %s: %w", s.name, s.file, err))
		}
	case s.list != "":
		if _, ring, err = (&reach{backends: s.list, service: d.service, ringSecretFile: d.ringSecretFile}).ring(ctx, g); err != nil {
			err = fmt.Errorf("--%s: %w", s.name, err)
		}
	default:
		_, ring, err = d.ring(ctx, g)
	}
	return ring, err
}

// readRing makes the ring that `ring show --output json` printed.
func (d *ringDiff) readRing(file string) (*hashring.Ring, error) {
	secret, err := d.ringSecret()
	if err != nil {
		return nil, err
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var printed ringPrint
	if err := json.Unmarshal(data, &printed); err != nil {
		return nil, fmt.Errorf("not what `selvedge ring show --output json` prints: %w", err)
	}
	var members []hashring.Member
	for _, l := range printed.Members {
		if l.InRing {
			members = append(members, hashring.Member{ID: l.ID, Weight: int(l.Weight)})
		}
	}
	ring, err := newRingOf(members, secret)
	if err == nil && ring.Digest() != printed.Ring {
		err = fmt.Errorf("its members make ring %s, and it says %q; has it been edited, or has the ring a secret (--ring-secret-file)?", ring.Digest(), printed.Ring)
	}
	return ring, err
}

// diffPrint is a change as it is printed.
type diffPrint struct {
	From         diffSide       `json:"from"`
	To           diffSide       `json:"to"`
	Moved        float64        `json:"moved"` // shares of all users, 0 to 1
	Least        float64        `json:"least"`
	MovedToLeast float64        `json:"moved_to_least"`
	Flows        []ringsim.Flow `json:"flows"`
	Ranges       []diffRange    `json:"ranges,omitempty"`
}

type diffSide struct {
	Ring    string `json:"ring"`
	Members int    `json:"members"`
}

// diffRange is a range of hashes, both ends included, in 16 hexadecimal digits.
type diffRange struct {
	First string `json:"first"`
	Last  string `json:"last"`
	From  string `json:"from"`
	To    string `json:"to"`
}

func printDiff(out *printer, from, to *hashring.Ring, c ringsim.Change, withRanges bool) error {
	var ranges []diffRange
	if withRanges {
		for _, m := range c.Ranges {
			ranges = append(ranges, diffRange{fmt.Sprintf("%016x", m.Start), fmt.Sprintf("%016x", m.End), m.From, m.To})
		}
	}
	if out.asJSON {
		return out.line("", diffPrint{diffSide{from.Digest(), from.Len()}, diffSide{to.Digest(), to.Len()},
			c.Moved, c.Least, c.MovedToLeast(), append([]ringsim.Flow{}, c.Flows...), ranges})
	}
	var text strings.Builder
	fmt.Fprintf(&text, "from ring %s, %s, to ring %s, %s\n", from.Digest(), count(from.Len(), "member"), to.Digest(), count(to.Len(), "member"))
	if len(c.Flows) == 0 {
		text.WriteString("no user moves")
		return out.line(text.String(), nil)
	}
	fmt.Fprintf(&text, "%.2f%% of users move; for these shares %.2f%% have to (%.2f times the least possible)\n",
		100*c.Moved, 100*c.Least, c.MovedToLeast())
	width := len("FROM")
	for _, f := range c.Flows {
		width = max(width, utf8.RuneCountInString(f.From), utf8.RuneCountInString(f.To))
	}
	fmt.Fprintf(&text, "\n%-*s  %-*s  %7s", width, "FROM", width, "TO", "SHARE")
	for _, f := range c.Flows {
		fmt.Fprintf(&text, "\n%-*s  %-*s  %6.2f%%", width, f.From, width, f.To, 100*f.Share)
	}
	if withRanges {
		fmt.Fprintf(&text, "\n\n%-16s  %-16s  %-*s  %s", "FIRST HASH", "LAST HASH", width, "FROM", "TO")
		for _, r := range ranges {
			fmt.Fprintf(&text, "\n%s  %s  %-*s  %s", r.First, r.Last, width, r.From, r.To)
		}
	}
	return out.line(text.String(), nil)
}
