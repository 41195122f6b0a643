// Command bench runs the side-by-side benchmarks of a built selvedge: `bench proxies`, `bench sessions` and `bench push`. It prints a table
// and writes JSON and a plot. See the package bench for what is measured; `make bench`, `make bench-sessions` and `make bench-push` run it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/selvedge/selvedge/internal/bench"
)

func main() {
	if is, err := bench.Role(os.Args[1:]); is {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", os.Args[1], err)
			os.Exit(1)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("which one? bench proxies | sessions | push, with -help for its flags")
	}
	switch name := args[0]; name {
	case "sessions":
		flags, short, env, out := newFlags(name)
		given := bench.SessionsDefaults()
		flags.IntVar(&given.Sessions, "n", given.Sessions, "sessions on each proxy in each round")
		flags.IntVar(&given.Rounds, "rounds", given.Rounds, "rounds, of which the medians are taken")
		flags.IntVar(&given.Total, "total", given.Total, "sessions held at once in the end, over as many edges as they need")
		_ = flags.Parse(args[1:]) // exits on errors
		if *short {
			given = bench.SessionsShort()
		}
		report, err := bench.Sessions(ctx, *env, given)
		if err != nil {
			return err
		}
		return show(report, *out)
	case "proxies":
		flags, short, env, out := newFlags(name)
		given := bench.ProxiesDefaults()
		flags.IntVar(&given.Rounds, "rounds", given.Rounds, "rounds, of which the medians are taken")
		flags.StringVar(&given.CaddyDir, "caddy", given.CaddyDir, "`DIRECTORY` of the module that builds Caddy; empty: without Caddy")
		flags.Func("only", fmt.Sprintf("`FIGURES` that are measured instead of all: some of %v, with commas between them", bench.Figures), func(list string) error {
			for name := range strings.SplitSeq(list, ",") {
				if !slices.Contains(bench.Figures, bench.Figure(name)) {
					return fmt.Errorf("%q is none of %v", name, bench.Figures)
				}
				given.Only = append(given.Only, bench.Figure(name))
			}
			return nil
		})
		flags.Func("beside", "`NAMES` of the proxies beside the edge instead of all, such as nginx,HAProxy", func(list string) error {
			given.Beside = strings.Split(list, ",")
			return nil
		})
		_ = flags.Parse(args[1:]) // exits on errors
		if *short {
			given = bench.ProxiesShort()
		}
		report, err := bench.Proxies(ctx, *env, given)
		if err != nil {
			return err
		}
		return show(report, *out)
	case "push":
		flags, short, env, out := newFlags(name)
		given := bench.PushDefaults()
		flags.IntVar(&given.Users, "users", given.Users, "online users")
		flags.Func("backends", "`NUMBERS` of backends that are compared, such as 1,2,4", func(list string) (err error) {
			given.Backends, err = numbers(list)
			return err
		})
		flags.Func("ways", fmt.Sprintf("`NAMES` of ways that are compared, of %q, with commas", given.Ways), func(list string) (err error) {
			given.Ways, err = names(list, given.Ways)
			return err
		})
		flags.IntVar(&given.Rounds, "rounds", given.Rounds, "rounds, of which the medians are taken")
		_ = flags.Parse(args[1:]) // exits on errors
		if *short {
			given = bench.PushShort()
		}
		report, err := bench.Push(ctx, *env, given)
		if err != nil {
			return err
		}
		return show(report, *out)
	default:
		return fmt.Errorf("%q is none of proxies, sessions, push", name)
	}
}

func numbers(list string) (all []int, err error) {
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("want numbers from 1, with commas between them")
		}
		all = append(all, n)
	}
	return all, nil
}

func names(list string, known []string) (all []string, err error) {
	for name := range strings.SplitSeq(list, ",") {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("%q is none of %q", name, known)
		}
		all = append(all, name)
	}
	return all, nil
}

// newFlags makes the flags that all benchmarks have.
func newFlags(name string) (flags *flag.FlagSet, short *bool, env *bench.Env, out *string) {
	self, _ := os.Executable() // without it the first client process fails, and says so
	env = &bench.Env{
		Self:     self,
		Progress: func(line string) { fmt.Fprintln(os.Stderr, line) },
	}
	flags = newFlagSet(name)
	short = flags.Bool("short", false, "take seconds, to see that it works; other numbers are ignored")
	flags.StringVar(&env.Binary, "binary", filepath.Join("bin", "selvedge"), "`FILE` of the selvedge under test")
	out = flags.String("out", filepath.Join("bench", "out"), "`DIRECTORY` for JSON and plot")
	return flags, short, env, out
}

func newFlagSet(name string) *flag.FlagSet { return flag.NewFlagSet("bench "+name, flag.ExitOnError) }

func show(report bench.Report, out string) error {
	if err := report.Table().WriteText(os.Stdout); err != nil {
		return err
	}
	return bench.Save(out, report)
}
