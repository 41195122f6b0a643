package main

import (
	"fmt"
	"strings"
)

// must is a figure that hashring has to reach.
type must struct {
	What string `json:"what"`
	Is   string `json:"is"`
	Met  bool   `json:"met"`
}

// equalBalance is the peak to mean of 100 members up to which a contender spreads as evenly as ours has to.
const equalBalance = 1.05

// judge holds ours, the first of all, against what it has to reach.
func judge(all []figures, l large) []must {
	o, peers := all[0], all[1:]
	off := *o.Off
	musts := []must{
		{"peak to mean, 100 members: at most 1.05", fmt.Sprintf("%.3f", o.Peak100), o.Peak100 <= 1.05},
		{"peak to mean, 10 members: at most 1.03", fmt.Sprintf("%.3f", o.Peak10), o.Peak10 <= 1.03},
		{"worst share against its weight, 1 to 10: at most 6 % off", fmt.Sprintf("%.1f %%", 100*off), off <= 0.06},
		{"keys between survivors on add and remove: 0, exactly",
			fmt.Sprintf("%g keys, %d ranges", o.BetweenOnAdd+o.BetweenOnRemove, l.between), o.BetweenOnAdd+o.BetweenOnRemove == 0 && l.between == 0},
		{"Owner: at most 45 ns, 0 allocations", fmt.Sprintf("%.1f ns, %g", o.OwnerNS, o.Allocs), o.OwnerNS <= 45 && o.Allocs == 0},
	}
	faster := must{What: "Owner: faster than each peer of equal balance", Met: true}
	var found []string
	for _, p := range peers {
		if p.Peak100 > equalBalance {
			continue
		}
		text := fmt.Sprintf("%s %.1f ns", p.Name, p.OwnerNS)
		if moves := p.BetweenOnAdd + p.BetweenOnRemove; moves > 0 {
			text += fmt.Sprintf(" (moves %.2g %% between survivors)", 50*moves)
		}
		found = append(found, text)
		faster.Met = faster.Met && o.OwnerNS < p.OwnerNS
	}
	faster.Is = strings.Join(found, ", ")
	musts = append(musts, faster)
	return append(musts,
		must{"one member added to 100: at most 3 ms", fmt.Sprintf("%.2f ms; %.2f with cold caches", o.AddMS, o.AddCold), o.AddMS <= 3},
		must{"memory per unit of weight: at most 64 KiB", fmt.Sprintf("%.1f KiB", o.KiBEach), o.KiBEach <= 64},
		must{"1,000 members of weight 1: at most 64 MiB", fmt.Sprintf("%d members, %.1f MiB", l.members, l.bytes/(1<<20)), l.bytes <= 64<<20},
	)
}

// text is the table, in Markdown, so that it can stand in a document as it is.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s on %s, %d processors, load before %s, after %s; %.0f s\n", r.Go, r.Platform, r.CPUs, or(r.LoadBefore, "unknown"), or(r.LoadAfter, "unknown"), r.Seconds)
	if r.Short {
		b.WriteString("A short run: it shows that the bench works, and its figures are worth nothing.\n")
	}
	b.WriteString("\n| | peak to mean, 100 | 10 | worst off weight | between survivors, add | remove | Owner ns | allocs | add one, ms | KiB a member |\n")
	b.WriteString("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n")
	for _, f := range r.Contenders {
		peak, off, add := "%.3f", "-", "%.2f"
		if !f.Exact {
			peak = "~%.3f"
		}
		if f.Off != nil {
			off = fmt.Sprintf("%.1f %%", 100**f.Off)
		}
		if f.Rebuilt {
			add = "%.2f (build)"
		}
		fmt.Fprintf(&b, "| %s | "+peak+" | "+peak+" | %s | %s | %s | %.1f | %g | "+add+" | %.1f |\n",
			f.Name, f.Peak100, f.Peak10, off, percent(f.BetweenOnAdd), percent(f.BetweenOnRemove), f.OwnerNS, f.Allocs, f.AddMS, f.KiBEach)
	}
	b.WriteString("\n~ counted with keys, whose noise is in it; (build) built anew, as nginx and Maglev do; HAProxy puts a server's points into its tree\n")
	for _, f := range r.Contenders {
		fmt.Fprintf(&b, "  %-22s  %s\n", f.Name, f.About)
	}
	b.WriteString("\nWhat ours must reach:\n")
	for _, m := range r.Musts {
		verdict := "met"
		if !m.Met {
			verdict = "NOT MET"
		}
		fmt.Fprintf(&b, "  %-7s  %s: %s\n", verdict, m.What, m.Is)
	}
	return b.String()
}

// percent writes a part as a percentage, and nothing at all as 0.
func percent(part float64) string {
	if part == 0 {
		return "0"
	}
	return fmt.Sprintf("%.2f %%", 100*part)
}

func or(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}
