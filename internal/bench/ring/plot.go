package main

import (
	"fmt"
	"math"
	"strings"
)

// The plot's measures, in pixels at its natural size.
const (
	plotWidth = 860
	plotTop   = 96
	rowHeight = 26
	nameWidth = 190
	panelGap  = 44
	margin    = 26
)

const plotStyle = `
  svg { --paper: #ffffff; --ink: #1c2430; --faint: #5b6675; --line: #dfe3e9; --peer: #7c8aa0; --ours: #2f6fde; --must: #c2410c }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #12161c; --ink: #e6e9ee; --faint: #98a3b3; --line: #2a323d; --peer: #8794a8; --ours: #6ea2ff; --must: #fb923c }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink) }
  .title { font-size: 17px; font-weight: 600 }
  .faint { fill: var(--faint); font-size: 12px }
  .us { font-weight: 600 }
  .paper { fill: var(--paper) }
  .line { stroke: var(--line) }
  .must { stroke: var(--must); stroke-dasharray: 4 3 }
  .musttext { fill: var(--must); font-size: 12px }
  .peer { fill: var(--peer); stroke: var(--peer); stroke-width: 2 }
  .ours { fill: var(--ours); stroke: var(--ours); stroke-width: 2 }
  .moves { fill: var(--paper) }
`

// A panel is one of the plot's two scales, both logarithmic.
type panel struct {
	title    string
	from, to float64
	left     float64
	must     float64
	ticks    []float64
	unit     string
	value    func(f figures) float64
}

func (p panel) width() float64 { return (plotWidth - 2*margin - nameWidth - panelGap) / 2 }

func (p panel) x(value float64) float64 {
	part := math.Log(value/p.from) / math.Log(p.to/p.from)
	return p.left + p.width()*min(1, max(0, part))
}

// svg draws balance and speed of all, in the viewer's light or dark colours.
func (r *report) svg() string {
	balance := panel{title: "above the mean: the busiest of 100 members", from: 0.05, to: 1000, must: 5, left: margin + nameWidth,
		ticks: []float64{0.1, 1, 10, 100, 1000}, unit: " %", value: func(f figures) float64 { return 100 * (f.Peak100 - 1) }}
	speed := panel{title: "time of a look-up among 100 members", from: 5, to: 2000, must: 45,
		ticks: []float64{10, 100, 1000}, unit: " ns", value: func(f figures) float64 { return f.OwnerNS }}
	speed.left = balance.left + balance.width() + panelGap

	var b strings.Builder
	bottom := plotTop + rowHeight*len(r.Contenders)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`, plotWidth, bottom+66)
	fmt.Fprintf(&b, "\n<title>Balance and speed of consistent-hash rings</title>\n<style>%s</style>\n", plotStyle)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d" rx="8"/>`+"\n", plotWidth, bottom+66)
	fmt.Fprintf(&b, `<text class="title" x="%d" y="34">Consistent hashing: balance and speed</text>`+"\n", margin)
	for _, p := range []panel{balance, speed} {
		fmt.Fprintf(&b, `<text class="faint" x="%.1f" y="64">%s</text>`+"\n", p.left, p.title)
		for _, tick := range p.ticks {
			fmt.Fprintf(&b, `<line class="line" x1="%.1f" x2="%[1]f" y1="%d" y2="%d"/>`+"\n", p.x(tick), plotTop-12, bottom)
			fmt.Fprintf(&b, `<text class="faint" x="%.1f" y="%d" text-anchor="middle">%g%s</text>`+"\n", p.x(tick), bottom+18, tick, p.unit)
		}
		fmt.Fprintf(&b, `<line class="must" x1="%.1f" x2="%[1]f" y1="%d" y2="%d"/>`+"\n", p.x(p.must), plotTop-12, bottom)
		fmt.Fprintf(&b, `<text class="musttext" x="%.1f" y="%d" text-anchor="middle">at most %g%s</text>`+"\n", p.x(p.must), plotTop-17, p.must, p.unit)
	}
	for i, f := range r.Contenders {
		y := plotTop + rowHeight*i + rowHeight/2
		class, dot := "", "peer"
		if i == 0 {
			class, dot = ` class="us"`, "ours"
		}
		fmt.Fprintf(&b, `<text%s x="%d" y="%d">%s</text>`+"\n", class, margin, y+4, f.Name)
		if f.BetweenOnAdd+f.BetweenOnRemove > 0 {
			dot += " moves"
		}
		for _, p := range []panel{balance, speed} {
			fmt.Fprintf(&b, `<circle class="%s" cx="%.1f" cy="%d" r="5"><title>%s: %.3g%s</title></circle>`+"\n",
				dot, p.x(p.value(f)), y, f.Name, p.value(f), p.unit)
		}
	}
	fmt.Fprintf(&b, `<text class="faint" x="%d" y="%d">Left is better. Hollow: moves keys between members that stay. Scales are logarithmic.</text>`+"\n",
		margin, bottom+48)
	b.WriteString("</svg>\n")
	return b.String()
}
