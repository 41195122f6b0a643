package discovery

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Defaults of HealthCheck, where the field is zero: HAProxy's, but for the timeout.
const (
	DefaultCheckInterval = 2 * time.Second
	DefaultCheckTimeout  = time.Second
	DefaultCheckRise     = 2
	DefaultCheckFall     = 3
)

// HealthCheck says how members are asked whether they are well. Either HTTP or TCP is set, or nothing at all: then nobody is asked.
type HealthCheck struct {
	HTTP     string        // path, with a query or without, that GET answers with 200 to 399
	TCP      bool          // a connection that comes about is enough
	Interval time.Duration // from the start of a member's check to that of its next, give or take a tenth; default 2 s
	Timeout  time.Duration // for the connection and the head of the answer; default 1 s
	Rise     int           // good checks in a row that bring a member back; default 2
	Fall     int           // bad checks in a row that take it out; default 3
}

// On tells whether members are asked.
func (h HealthCheck) On() bool { return h != HealthCheck{} }

// Validate says what is wrong with h, in the words of the configuration, and what would be right.
func (h HealthCheck) Validate() error {
	switch {
	case !h.On():
		return nil
	case h.HTTP == "" && !h.TCP:
		return errors.New("it does not say how to check: set http to a path, or tcp to true")
	case h.HTTP != "" && h.TCP:
		return errors.New("http and tcp are both set; http connects, too: leave tcp out")
	case h.HTTP != "" && (!strings.HasPrefix(h.HTTP, "/") || strings.ContainsFunc(h.HTTP, func(r rune) bool { return r <= ' ' || r >= 0x7f })):
		return fmt.Errorf("http %q: want a path that starts with /, percent-encoded", clip(h.HTTP))
	case h.Interval < 0, h.Timeout < 0:
		return errors.New("interval or timeout is negative; leave it out for the default")
	case h.Rise < 0, h.Fall < 0:
		return errors.New("rise or fall is negative; leave it out for the default")
	}
	return nil
}

func (h HealthCheck) withDefaults() HealthCheck {
	h.Interval = cmp.Or(h.Interval, DefaultCheckInterval)
	h.Timeout = cmp.Or(h.Timeout, DefaultCheckTimeout)
	h.Rise = cmp.Or(h.Rise, DefaultCheckRise)
	h.Fall = cmp.Or(h.Fall, DefaultCheckFall)
	return h
}

// checkFailure is why a check failed: the metric's label.
type checkFailure uint8

const (
	failedConnect checkFailure = iota
	failedTimeout
	failedStatus
	failedAnswer
	checkFailures // how many there are
)

func (f checkFailure) String() string {
	return [checkFailures]string{"connect", "timeout", "status", "answer"}[f]
}

// checkError is a check that failed.
type checkError struct {
	reason checkFailure
	err    error
}

func (e *checkError) Error() string { return e.err.Error() }
func (e *checkError) Unwrap() error { return e.err }

// checkHeadBytes bounds what is read of an answer. The body is left unread.
const checkHeadBytes = 16 << 10

// probe checks m once, over a connection of its own. Every error is a *checkError, unless ctx has ended.
func (h HealthCheck) probe(ctx context.Context, m Member, dial DialFunc) error {
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	fail := func(reason checkFailure, err error) error {
		if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			reason, err = failedTimeout, fmt.Errorf("no answer within %v", h.Timeout)
		}
		return &checkError{reason, err}
	}
	conn, err := dial(ctx, m)
	if err != nil {
		return fail(failedConnect, err)
	}
	defer conn.Close()
	if h.TCP {
		return nil
	}
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: selvedge-health-check\r\nConnection: close\r\n\r\n", h.HTTP, checkHost(m))
	if err != nil {
		return fail(failedAnswer, err)
	}
	head := bufio.NewReader(io.LimitReader(conn, checkHeadBytes))
	for {
		answer, err := http.ReadResponse(head, nil) //nolint:bodyclose // conn.Close ends it
		switch {
		case err != nil:
			return fail(failedAnswer, fmt.Errorf("the answer is no HTTP: %w", err))
		case answer.StatusCode < 200 && answer.StatusCode != http.StatusSwitchingProtocols:
			continue // an interim answer
		case answer.StatusCode < 200 || answer.StatusCode >= 400:
			return &checkError{failedStatus, errors.New("it answers " + strconv.Itoa(answer.StatusCode))}
		}
		return nil
	}
}

// checkHost is what a check names in its Host field: the member as it is registered.
func checkHost(m Member) string {
	switch {
	case IsSocket(m.Addr):
		return "localhost"
	case m.Name == "":
		return m.Addr
	}
	_, port, err := net.SplitHostPort(m.Addr)
	if err != nil {
		return m.Name
	}
	return net.JoinHostPort(m.Name, port)
}
