package ringsim

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strconv"
)

// The plot's measures, in pixels at its natural size.
const (
	plotWidth = 760
	rowHeight = 150 // of one step
	headSpace = 62
	footSpace = 56
	margin    = 28
	barSpace  = 92 // of a row: the tallest bar
	bins      = 48
)

const plotStyle = `
  svg { --paper: #ffffff; --ink: #1c2430; --faint: #5b6675; --line: #d5dae1; --bar: #3b6fd4; --mark: #c2410c }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #12161c; --ink: #e6e9ee; --faint: #98a3b3; --line: #2e3642; --bar: #6f9cf0; --mark: #fb923c }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink) }
  .title { font-size: 17px; font-weight: 600 }
  .faint { fill: var(--faint); font-size: 12px }
  .peak { fill: var(--mark); font-size: 12px }
  .paper { fill: var(--paper) }
  .bar { fill: var(--bar) }
  .line { stroke: var(--line) }
  .due { stroke: var(--faint); stroke-dasharray: 3 3 }
  .mark { stroke: var(--mark); stroke-width: 1.5 }
`

// WriteSVG draws for each step how many members have which load. It follows the viewer's light or dark colours.
func (r *Result) WriteSVG(w io.Writer) error {
	var b bytes.Buffer
	height := headSpace + rowHeight*len(r.Steps) + footSpace
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`, plotWidth, height)
	fmt.Fprintf(&b, "\n<title>Load of each member on a simulated ring</title>\n<style>%s</style>\n", plotStyle)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d" rx="8"/>`+"\n", plotWidth, height)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="34">%s users on %s members</text>`+"\n",
		margin, thousands(r.Users), thousands(r.Steps[0].Members))
	fmt.Fprintf(&b, `<text class="faint" x="%d" y="54">members by load: users against what the weight entitles to</text>`+"\n", margin)

	axis := r.axis()
	tallest := 1
	counts := make([][]int, len(r.Steps))
	for i, step := range r.Steps {
		counts[i] = axis.count(step.loads)
		for _, n := range counts[i] {
			tallest = max(tallest, n)
		}
	}
	for i, step := range r.Steps {
		title := "at the start"
		switch step.Name {
		case "kill":
			title = fmt.Sprintf("%s killed", thousands(r.Steps[i-1].Members-step.Members))
		case "add":
			title = fmt.Sprintf("%s added", thousands(step.Members-r.Steps[i-1].Members))
		}
		step.draw(&b, title, axis, counts[i], tallest, headSpace+rowHeight*i)
	}
	axis.draw(&b, headSpace+rowHeight*len(r.Steps)+4)
	b.WriteString("</svg>\n")
	_, err := w.Write(b.Bytes())
	return err
}

// draw draws the step's histogram below top.
func (s *Step) draw(b *bytes.Buffer, title string, axis loadAxis, counts []int, tallest, top int) {
	base := top + rowHeight - 16
	fmt.Fprintf(b, `<text x="%d" y="%d">%s: %s members</text>`+"\n", margin, top+24, title, thousands(s.Members))
	if s.Name != "start" {
		fmt.Fprintf(b, `<text class="faint" x="%d" y="%d" text-anchor="end">%s moved, at least %s had to, %s between survivors</text>`+"\n",
			plotWidth-margin, top+24, thousands(s.Moved), thousands(s.Least), thousands(s.BetweenSurvivors))
	}
	width := float64(plotWidth-2*margin) / bins
	for i, n := range counts {
		if n > 0 {
			tall := max(1.5, float64(n)*barSpace/float64(tallest))
			fmt.Fprintf(b, `<rect class="bar" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n",
				margin+float64(i)*width+0.5, float64(base)-tall, width-1, tall)
		}
	}
	fmt.Fprintf(b, `<line class="line" x1="%d" x2="%d" y1="%d" y2="%[3]d"/>`+"\n", margin, plotWidth-margin, base)
	fmt.Fprintf(b, `<line class="due" x1="%.1f" x2="%[1]f" y1="%d" y2="%d"/>`+"\n", axis.x(1), base-barSpace-4, base)
	peak := axis.x(s.PeakToMean)
	fmt.Fprintf(b, `<line class="mark" x1="%.1f" x2="%[1]f" y1="%d" y2="%d"/>`+"\n", peak, base-26, base)
	fmt.Fprintf(b, `<text class="peak" x="%.1f" y="%d" text-anchor="end">peak %.3f</text>`+"\n", min(peak+4, plotWidth-margin), base-32, s.PeakToMean)
}

// A loadAxis maps loads to places from left to right.
type loadAxis struct{ from, to float64 }

// axis returns one that has room for all loads of all steps, and for 1.
func (r *Result) axis() loadAxis {
	a := loadAxis{1, 1}
	for _, s := range r.Steps {
		a.from, a.to = min(a.from, s.LeastToMean), max(a.to, s.PeakToMean)
	}
	room := max(0.01, (a.to-a.from)*0.04)
	return loadAxis{a.from - room, a.to + room}
}

func (a loadAxis) x(load float64) float64 {
	return margin + (load-a.from)/(a.to-a.from)*(plotWidth-2*margin)
}

func (a loadAxis) count(loads []float64) []int {
	counts := make([]int, bins)
	for _, l := range loads {
		counts[min(bins-1, int((l-a.from)/(a.to-a.from)*bins))]++
	}
	return counts
}

// draw writes the axis' numbers, some eight of them, below top.
func (a loadAxis) draw(b *bytes.Buffer, top int) {
	step := math.Pow(10, math.Ceil(math.Log10((a.to-a.from)/8)))
	for _, part := range []float64{5, 2} {
		if (a.to-a.from)/(step/part) <= 9 {
			step /= part
			break
		}
	}
	digits := max(0, int(math.Ceil(-math.Log10(step)-1e-9)))
	for i := math.Ceil(a.from / step); i*step <= a.to; i++ {
		fmt.Fprintf(b, `<text class="faint" x="%.1f" y="%d" text-anchor="middle">%.*f</text>`+"\n", a.x(i*step), top+8, digits, i*step)
	}
	fmt.Fprintf(b, `<text class="faint" x="%d" y="%d" text-anchor="middle">load (1: just what the weight entitles to)</text>`+"\n", plotWidth/2, top+30)
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
