package config

import (
	"errors"
	"fmt"
	"strings"
)

// Error is a setting that is wrong.
type Error struct {
	File string // "" where it does not come from a file
	Line int    // 0: not known
	Key  string // dotted, as in the file: routes[0].path
	Text string // what is wrong, and what would be right

	cause error // nil: none
}

// Unwrap is the error that a package found, where there is one.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) Error() string {
	var where strings.Builder
	if e.File != "" {
		where.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&where, ":%d", e.Line)
		}
		where.WriteString(": ")
	}
	if e.Key != "" {
		where.WriteString(e.Key + ": ")
	}
	return where.String() + e.Text
}

// Wrongf is an error about a key, for a check that does not know the file. [Settings.Locate] adds where the key stands.
func Wrongf(key, format string, args ...any) error {
	return &Error{Key: key, Text: fmt.Sprintf(format, args...)}
}

// Under is err about the key, or about one below it where err is an [Error] already; nil where err is nil.
func Under(key string, err error) error {
	if err == nil {
		return nil
	}
	var below *Error
	if errors.As(err, &below) && below.File == "" && below.Key != "" {
		return &Error{Key: key + "." + below.Key, Text: below.Text, cause: below.cause}
	}
	return &Error{Key: key, Text: err.Error(), cause: err}
}

// Has tells whether the file, the environment or a flag says something of a key.
func (s *Settings) Has(key string) bool { return s.has(key) }

// Wrong is an error about a key of these settings.
func (s *Settings) Wrong(key, text string) error {
	e := &Error{Key: key, Text: text}
	s.locate(e)
	return e
}

// Locate says of each [Error] in err where its key stands: err is what a package found wrong with a configuration made of these
// settings. It returns them joined, or err where there is none among it.
func (s *Settings) Locate(err error) error {
	if err == nil {
		return nil
	}
	var all []error
	var visit func(error) bool
	visit = func(err error) (found bool) {
		if e, ok := err.(*Error); ok { //nolint:errorlint // each layer is looked at by itself
			located := *e
			s.locate(&located)
			all = append(all, &located)
			return true
		}
		switch inner := err.(type) { //nolint:errorlint // the same
		case interface{ Unwrap() []error }:
			for _, one := range inner.Unwrap() {
				if !visit(one) {
					all = append(all, one)
				}
				found = true
			}
		case interface{ Unwrap() error }: // what wraps it says who speaks, which the key does better
			if next := inner.Unwrap(); next != nil {
				found = visit(next)
			}
		}
		return found
	}
	if !visit(err) {
		return err
	}
	return errors.Join(all...)
}

// locate fills in file and line, where the key stands in the file: other keys come from the environment or from flags.
func (s *Settings) locate(e *Error) {
	if e.File == "" && e.Key != "" && s.document.Kind != 0 {
		if e.Line = lineOf(&s.document, e.Key); e.Line > 0 {
			e.File = s.file
		}
	}
}
