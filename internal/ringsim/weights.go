package ringsim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/selvedge/selvedge/hashring"
)

// Weights are dealt to members in turn: the first member gets the first one, and after the last it begins anew. The zero value
// deals 1 to everybody. It is a flag's value (pflag.Value).
type Weights struct {
	text string
	deal []int
}

// maxDeal bounds the list: longer than any ring can have members.
const maxDeal = hashring.MaxTotalWeight

// Set parses text: terms separated by commas, each a weight (3) or a span of weights (1-10), with xN behind it to have it N
// times. 1x900,2x100 is nine hundred times 1 and then a hundred times 2; 1-10 is 1, 2, ... 10. An error names the term.
func (w *Weights) Set(text string) error {
	var deal []int
	for term := range strings.SplitSeq(text, ",") {
		first, last, times, err := parseTerm(strings.TrimSpace(term))
		if err != nil {
			return fmt.Errorf("%q: %w; write W, FIRST-LAST or either of them xN, separated by commas, as in 1x900,2x100", term, err)
		}
		if n := (last - first + 1) * times; n > maxDeal-len(deal) {
			return fmt.Errorf("%q: more than %d weights in all", term, maxDeal)
		}
		for range times {
			for weight := first; weight <= last; weight++ {
				deal = append(deal, weight)
			}
		}
	}
	*w = Weights{text, deal}
	return nil
}

func parseTerm(term string) (first, last, times int, err error) {
	span, count, counted := strings.Cut(term, "x")
	times = 1
	if counted {
		if times, err = parseNumber(count, maxDeal, "the number after x"); err != nil {
			return 0, 0, 0, err
		}
	}
	from, to, isSpan := strings.Cut(span, "-")
	if first, err = parseNumber(from, hashring.MaxWeight, "a weight"); err != nil {
		return 0, 0, 0, err
	}
	if last = first; isSpan {
		if last, err = parseNumber(to, hashring.MaxWeight, "a weight"); err != nil {
			return 0, 0, 0, err
		}
		if last < first {
			return 0, 0, 0, errors.New("the span ends before it begins")
		}
	}
	return first, last, times, nil
}

func parseNumber(text string, most int, what string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("%s has to be 1 to %d", what, most)
	}
	return n, nil
}

// String returns the text that was set, 1 where none was.
func (w *Weights) String() string {
	if w.text == "" {
		return "1"
	}
	return w.text
}

// Type names the value in a command's help.
func (*Weights) Type() string { return "weights" }

// of returns the weight of member i, from 0.
func (w *Weights) of(i int) int {
	if len(w.deal) == 0 {
		return 1
	}
	return w.deal[i%len(w.deal)]
}
