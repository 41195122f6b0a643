package ringsim

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"
)

func TestWriteSVG(t *testing.T) {
	for name, cfg := range map[string]Config{
		"all steps":  {Members: 40, Users: 50_000, Kill: 4, Add: 2, Seed: 1},
		"one member": {Members: 1, Users: 1, Seed: 1},
		"few users":  {Members: 100, Users: 3, Kill: 1, Seed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := run(t, cfg)
			var b bytes.Buffer
			if err := r.WriteSVG(&b); err != nil {
				t.Fatal(err)
			}
			bars, marks := 0, 0
			for d := xml.NewDecoder(&b); ; {
				token, err := d.Token()
				if errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				e, ok := token.(xml.StartElement)
				if !ok {
					continue
				}
				at := map[string]string{}
				for _, a := range e.Attr {
					at[a.Name.Local] = a.Value
				}
				if at["class"] == "bar" {
					bars++
				}
				if at["class"] == "mark" {
					marks++
				}
				for _, side := range []string{"x", "x1", "x2"} {
					if text, ok := at[side]; ok {
						if x, err := strconv.ParseFloat(text, 64); err != nil || x < 0 || x > plotWidth {
							t.Errorf("%s at %s = %s, off the paper", e.Name.Local, side, text)
						}
					}
				}
			}
			if marks != len(r.Steps) || bars < len(r.Steps) {
				t.Errorf("%d peaks and %d bars for %d steps", marks, bars, len(r.Steps))
			}
		})
	}
}

func TestPlotSaysWhatHappened(t *testing.T) {
	var b strings.Builder
	if err := run(t, Config{Members: 1200, Users: 60_000, Kill: 1001, Add: 2, Seed: 1}).WriteSVG(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"60,000 users on 1,200 members", "1,001 killed: 199 members", "2 added: 201 members",
		"0 between survivors", "prefers-color-scheme: dark"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the plot does not say %q", want)
		}
	}
}
