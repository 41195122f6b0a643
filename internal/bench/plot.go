package bench

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// The plots' measures, in pixels at their natural size.
const (
	plotWidth  = 720
	plotHeight = 360
	plotLeft   = 64
	plotRight  = 24
	plotTop    = 76
	plotBottom = 56
)

const plotStyle = `
  svg { --paper: #ffffff; --ink: #1c2430; --faint: #5b6675; --line: #d5dae1; --one: #3b6fd4; --two: #c2410c; --three: #15803d; --four: #a21caf }
  @media (prefers-color-scheme: dark) {
    svg { --paper: #12161c; --ink: #e6e9ee; --faint: #98a3b3; --line: #2e3642; --one: #6f9cf0; --two: #fb923c; --three: #4ade80; --four: #e879f9 }
  }
  text { font: 13px system-ui, sans-serif; fill: var(--ink) }
  .title { font-size: 17px; font-weight: 600 }
  .faint { fill: var(--faint); font-size: 12px }
  .paper { fill: var(--paper) }
  .line { stroke: var(--line) }
  .one { fill: var(--one); stroke: var(--one) }
  .two { fill: var(--two); stroke: var(--two) }
  .three { fill: var(--three); stroke: var(--three) }
  .four { fill: var(--four); stroke: var(--four) }
  polyline { fill: none; stroke-width: 2 }
`

// plot is figures over some places on the x axis, which stand at equal distances.
type plot struct {
	title, unit, axis string
	places            []string
	series            []series // at most four: there are four colours
	bars              bool     // instead of lines
}

type series struct {
	name    string
	figures []float64 // one for each place
}

// Plot draws the bytes of a session at each proxy.
func (r *SessionsReport) plot() plot {
	p := plot{title: "User-space memory of an idle WebSocket session", unit: "bytes, PSS growth of the proxy", bars: true,
		series: []series{{name: "median"}}}
	for _, row := range r.Rows {
		p.places = append(p.places, row.Name)
		p.series[0].figures = append(p.series[0].figures, row.Median.Bytes)
	}
	return p
}

// Plot draws the processor time of a push over the number of backends.
func (r *PushReport) plot() plot {
	p := plot{title: "Processor time per push, over the number of backends", axis: "backends",
		unit: fmt.Sprintf("microseconds of publisher, broker and backends above what they take idle; %s pushes/s, %s online users",
			thousands(float64(r.Config.Rate)), thousands(float64(r.Config.Users)))}
	for _, n := range r.Config.Backends {
		p.places = append(p.places, fmt.Sprint(n))
	}
	for _, way := range r.Config.Ways {
		if way == WayBridge { // which has one number
			continue
		}
		s := series{name: way}
		for _, n := range r.Config.Backends {
			if row, measured := r.of(way, n); measured {
				s.figures = append(s.figures, row.pacedCPU(r.Config.Rate))
			}
		}
		p.series = append(p.series, s)
	}
	return p
}

// svg draws the plot. It follows the viewer's light or dark colours.
func (p plot) svg() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" role="img">`, plotWidth, plotHeight)
	fmt.Fprintf(&b, "\n<title>%s</title>\n<style>%s</style>\n", html.EscapeString(p.title), plotStyle)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d" rx="8"/>`+"\n", plotWidth, plotHeight)
	fmt.Fprintf(&b, `<text class="title" x="24" y="34">%s</text>`+"\n", html.EscapeString(p.title))
	fmt.Fprintf(&b, `<text class="faint" x="24" y="54">%s</text>`+"\n", html.EscapeString(p.unit))
	step, top := p.scale()
	for f := 0.0; f <= top; f += step {
		fmt.Fprintf(&b, `<line class="line" x1="%d" x2="%d" y1="%.1f" y2="%[3]f"/>`+"\n", plotLeft, plotWidth-plotRight, p.y(f, top))
		fmt.Fprintf(&b, `<text class="faint" x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n", plotLeft-8, p.y(f, top)+4, thousands(f))
	}
	for i, place := range p.places {
		fmt.Fprintf(&b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", p.x(i), plotHeight-plotBottom+22, html.EscapeString(place))
	}
	fmt.Fprintf(&b, `<text class="faint" x="%d" y="%d" text-anchor="middle">%s</text>`+"\n",
		(plotLeft+plotWidth-plotRight)/2, plotHeight-14, html.EscapeString(p.axis))
	for i, s := range p.series {
		s.draw(&b, p, []string{"one", "two", "three", "four"}[i], top, i)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

func (s series) draw(b *bytes.Buffer, p plot, class string, top float64, n int) {
	if len(p.series) > 1 {
		x := plotWidth - plotRight - 150
		fmt.Fprintf(b, `<circle class="%s" cx="%d" cy="%d" r="4"/><text x="%d" y="%d">%s</text>`+"\n",
			class, x, 30+20*n, x+10, 34+20*n, html.EscapeString(s.name))
	}
	if !p.bars {
		fmt.Fprintf(b, `<polyline class="%s" points="`, class)
		for i, f := range s.figures {
			fmt.Fprintf(b, "%.1f,%.1f ", p.x(i), p.y(f, top))
		}
		b.WriteString("\"/>\n")
	}
	for i, f := range s.figures {
		y := p.y(f, top)
		if p.bars {
			fmt.Fprintf(b, `<rect class="%s" x="%.1f" y="%.1f" width="64" height="%.1f"/>`+"\n", class, p.x(i)-32, y, p.y(0, top)-y)
		} else {
			fmt.Fprintf(b, `<circle class="%s" cx="%.1f" cy="%.1f" r="4"/>`+"\n", class, p.x(i), y)
		}
		fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="middle">%s</text>`+"\n", p.x(i), y-9, thousands(f))
	}
}

func (p plot) x(place int) float64 {
	return plotLeft + (float64(place)+0.5)*float64(plotWidth-plotLeft-plotRight)/float64(len(p.places))
}

func (p plot) y(figure, top float64) float64 {
	return plotHeight - plotBottom - max(0, figure)/top*(plotHeight-plotTop-plotBottom)
}

// scale returns a round step for the lines across, some five of them, and where the highest is.
func (p plot) scale() (step, top float64) {
	most := 1.0
	for _, s := range p.series {
		for _, f := range s.figures {
			most = max(most, f)
		}
	}
	step = math.Pow(10, math.Ceil(math.Log10(most/5)))
	for _, part := range []float64{5, 2} {
		if most/(step/part) <= 6 {
			step /= part
			break
		}
	}
	return step, step * math.Ceil(most/step)
}
