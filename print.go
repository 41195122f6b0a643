package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"
)

// printer prints what a command found, one thing at a time: a line of text, or a line of JSON.
type printer struct {
	w      io.Writer
	asJSON bool
}

func newPrinter(w io.Writer, asJSON bool) *printer { return &printer{w, asJSON} }

func (p *printer) line(text string, data any) error {
	if p.asJSON {
		return json.NewEncoder(p.w).Encode(data)
	}
	_, err := fmt.Fprintln(p.w, text)
	return err
}

// count is "1 session", "2 sessions".
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// noArgs and someArgs are cobra's checks, as mistakes of the command line.
func noArgs(cmd *cobra.Command, args []string) error { return usage(cobra.NoArgs(cmd, args)) }

func someArgs(cmd *cobra.Command, args []string) error {
	return usage(cobra.MinimumNArgs(1)(cmd, args))
}
