package backendtest_test

import (
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/backendtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// recorder is a test whose failures are looked at.
type recorder struct {
	testing.TB
	fatal string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatal(args ...any) { r.Fatalf("%s", fmt.Sprint(args...)) }

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failure is what f fails the test with.
func failure(t *testing.T, cfg backend.Config, f func(m *backendtest.Member)) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(backendtest.New(r, cfg))
	}()
	<-done
	return r.fatal
}

// What does not happen fails the test, and says what happened instead.
func TestFailures(t *testing.T) {
	cfg := backend.Config{
		OnOpen: func(s *backend.Session, _ *http.Request) error {
			switch s.User() {
			case "nobody":
				return &backend.Refusal{Status: 404}
			case "leaver":
				s.Close(4321, "left")
			}
			return nil
		},
	}
	for _, test := range []struct {
		want string
		do   func(m *backendtest.Member)
	}{
		{"404", func(m *backendtest.Member) { m.Connect("nobody") }},
		{"want status 403", func(m *backendtest.Member) { m.WantRefused(403, "nobody") }},
		{"want status 403", func(m *backendtest.Member) { m.WantRefused(403, "alice") }},
		{`closed with 4321 "left"`, func(m *backendtest.Member) { m.Connect("leaver").Receive() }},
		{`closed with 4321 "left", want 4000`, func(m *backendtest.Member) { m.Connect("leaver").WantClose(4000) }},
	} {
		if got := failure(t, cfg, test.do); !strings.Contains(got, test.want) {
			t.Errorf("got %q, want %q in it", got, test.want)
		}
	}
	if got := failure(t, backend.Config{Weight: -1}, func(*backendtest.Member) {}); !strings.Contains(got, "weight: -1") {
		t.Errorf("a config that is wrong: %q", got)
	}
}

// Pings are answered while the test waits, and any user id arrives as it is.
func TestClientAnswersPings(t *testing.T) {
	late := make(chan *backend.Session, 1)
	m := backendtest.New(t, backend.Config{
		PingEvery: time.Second, PongTimeout: 800 * time.Millisecond,
		OnOpen: func(s *backend.Session, _ *http.Request) error { late <- s; return nil },
	})
	const user = "al%ïce/ ?"
	c := m.Connect(user)
	s := <-late
	if s.User() != user {
		t.Errorf("user %q", s.User())
	}
	timer := time.AfterFunc(3*time.Second, func() { _ = s.Send(backend.Message{Data: []byte{1}, Binary: true}) })
	defer timer.Stop()
	if got := c.Receive(); !got.Binary || string(got.Data) != "\x01" {
		t.Errorf("%+v", got)
	}
}
