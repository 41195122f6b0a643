package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/internal/ringsim"
)

func newRingSimulate(g *global) *cobra.Command {
	var cfg ringsim.Config
	var plot string
	cmd := &cobra.Command{
		Use:   "simulate",
		Short: "Plan: spread users over members, kill some, add some",
		Long: "Spread random users over the members of a ring that does not exist, kill some members at once, then add some at once.\n" +
			"Shown are, after each step, the largest load against the mean (or against what the weight entitles to), the users\n" +
			"that moved against the least possible, and how many moved between members that stayed.\n\n" +
			"--weights are dealt to members in turn, those added last: W, FIRST-LAST, either of them xN, separated by commas.\n" +
			"1x900,2x100 is nine hundred times 1 and a hundred times 2; 1-10 is 1, 2, ... 10, and then again.\n\n" +
			"It takes some 200 MiB for a total weight of 1,000, and half a microsecond of one processor for a user.",
		Example: `  selvedge ring simulate --members 1000 --users 1000000 --kill 10 --add 5 --plot out.svg
  selvedge ring simulate --members 1000 --weights 1x900,2x100 --kill 1 --output json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := g.json()
			if err != nil {
				return err
			}
			sim, err := ringsim.New(cfg)
			if err != nil {
				return usage(err)
			}
			bar := newProgress(cmd.ErrOrStderr(), cfg.Users)
			result, err := sim.Run(cmd.Context(), bar.at)
			bar.clear()
			if err != nil {
				return err
			}
			if err := printSimulation(newPrinter(cmd.OutOrStdout(), asJSON), result); err != nil || plot == "" {
				return err
			}
			return writePlot(plot, result)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&cfg.Members, "members", 100, "`N` members at the start")
	flags.IntVar(&cfg.Users, "users", 1_000_000, "`N` users")
	flags.IntVar(&cfg.Kill, "kill", 0, "then `N` members go at once")
	flags.IntVar(&cfg.Add, "add", 0, "then `N` members come at once")
	flags.Var(&cfg.Weights, "weights", "`WEIGHTS` of the members, such as 1x900,2x100 or 1-10")
	flags.Uint64Var(&cfg.Seed, "seed", 1, "`NUMBER` that decides names, users and who is killed; the same one, the same result")
	flags.StringVar(&plot, "plot", "", "`FILE` to draw the loads into (SVG)")
	flags.SortFlags = false
	return cmd
}

func writePlot(name string, result *ringsim.Result) error {
	file, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	defer file.Close()
	if err := result.WriteSVG(file); err != nil {
		return fmt.Errorf("--plot: %w", err)
	}
	return file.Close()
}

func printSimulation(out *printer, r *ringsim.Result) error {
	if out.asJSON {
		return out.line("", r)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d users, seed %d\n", r.Users, r.Seed)
	fmt.Fprintf(&text, "%-5s  %7s  %6s  %12s  %13s  %10s  %10s  %6s  %17s",
		"STEP", "MEMBERS", "WEIGHT", "PEAK TO MEAN", "LEAST TO MEAN", "MOVED", "LEAST", "TIMES", "BETWEEN SURVIVORS")
	for _, s := range r.Steps {
		fmt.Fprintf(&text, "\n%-5s  %7d  %6d  %12.3f  %13.3f", s.Name, s.Members, s.Weight, s.PeakToMean, s.LeastToMean)
		if s.Name != r.Steps[0].Name {
			fmt.Fprintf(&text, "  %10d  %10d  %6.3f  %17d", s.Moved, s.Least, s.MovedToLeast, s.BetweenSurvivors)
		}
	}
	last := r.Steps[len(r.Steps)-1]
	fmt.Fprintf(&text, "\nlargest load in the end: %d users on %s", last.PeakUsers, last.PeakMember)
	return out.line(text.String(), nil)
}
