package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// progress draws a bar on a terminal. A nil *progress draws nothing.
type progress struct {
	w     io.Writer
	of    int
	drawn time.Time
}

const (
	progressEvery = 100 * time.Millisecond
	progressCells = 30
)

// newProgress returns a bar on w for something that is done when it has reached of; nil where w is no terminal.
func newProgress(w io.Writer, of int) *progress {
	if !isTerminal(w) {
		return nil
	}
	return &progress{w: w, of: of}
}

// at draws how far it is, if it is time again. It is never called by two goroutines at once.
func (p *progress) at(done int) {
	if p == nil || time.Since(p.drawn) < progressEvery {
		return
	}
	p.drawn = time.Now()
	full := progressCells * done / p.of
	fmt.Fprintf(p.w, "\r%s%s %3d%%", strings.Repeat("█", full), strings.Repeat("░", progressCells-full), 100*done/p.of)
}

// clear wipes the bar off the line; the next at draws it anew.
func (p *progress) clear() {
	if p != nil && !p.drawn.IsZero() {
		p.drawn = time.Time{}
		fmt.Fprintf(p.w, "\r%*s\r", progressCells+len(" 100%"), "")
	}
}

// isTerminal tells whether w is a character device other than the null device: a terminal, for all that a bar needs to know.
func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
