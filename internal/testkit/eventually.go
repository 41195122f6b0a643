package testkit

import (
	"errors"
	"testing"
	"time"
)

// Eventually polls check until it returns true or nil, and fails the test at once where that has not happened within the given
// time; then it tells what was awaited, and check's last error.
func Eventually[C func() bool | func() error](t testing.TB, within time.Duration, check C, what string) {
	t.Helper()
	if err := poll(within, check); err != nil {
		t.Fatalf("%s: not within %v: %v", what, within, err)
	}
}

const pollEvery = 5 * time.Millisecond

// poll looks at least twice: at once and at the end.
func poll[C func() bool | func() error](within time.Duration, check C) error {
	var look func() error
	switch check := any(check).(type) {
	case func() error:
		look = check
	case func() bool:
		look = func() error {
			if check() {
				return nil
			}
			return errors.New("still false")
		}
	}
	deadline := time.Now().Add(within)
	for {
		last := !time.Now().Before(deadline)
		err := look()
		if err == nil || last {
			return err
		}
		time.Sleep(min(pollEvery, max(time.Until(deadline), 0)))
	}
}
