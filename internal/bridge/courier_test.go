package bridge

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// script is a bridge whose broker is the test, and whose service answers as the test says, in the time of a synctest bubble.
type script struct {
	*Bridge
	answer func(user string, m sender.Message) (sessions int, err error)

	mu    sync.Mutex
	calls []string // "user text id" in the order in which they began
	kept  []letter
	ends  []string // "id settled" in the order in which messages ended
	broke error    // of keep
}

func play(t *testing.T, cfg Config, answer func(user string, m sender.Message) (int, error)) *script {
	t.Helper()
	cfg.AMQP, cfg.Queue, cfg.Logger = "amqp://broker", "chat", zap.NewNop()
	cfg = cfg.withDefaults()
	if err := cfg.check(); err != nil {
		t.Fatal(err)
	}
	src, err := cfg.newSource()
	if err != nil {
		t.Fatal(err)
	}
	p := &script{Bridge: newBridge(cfg, src), answer: answer}
	if p.metrics, err = newMetrics("default", "test", prometheus.NewRegistry()); err != nil {
		t.Fatal(err)
	}
	p.pusher = p
	return p
}

func (p *script) Push(_ context.Context, user string, m sender.Message) (sender.Result, error) {
	p.mu.Lock()
	p.calls = append(p.calls, user+" "+string(m.Data)+" "+m.ID)
	p.mu.Unlock()
	sessions, err := p.answer(user, m)
	return sender.Result{User: user, Sessions: sessions, MessageID: m.ID, Err: err}, err
}

func (p *script) PushMany(ctx context.Context, users []string, m sender.Message) (results []sender.Result, err error) {
	for _, user := range users {
		r, _ := p.Push(ctx, user, m)
		results = append(results, r)
	}
	return results, nil
}

func (p *script) Broadcast(_ context.Context, m sender.Message) (sessions int, unanswered []string, err error) {
	sessions, err = p.answer("*", m)
	if sessions < 0 {
		return 0, []string{"b7"}, nil
	}
	return sessions, nil, err
}

// give has the broker deliver a message.
func (p *script) give(id, body string) {
	p.take(context.Background(), &message{
		body: []byte(body), id: id, header: func(string) []string { return nil },
		end: func(settled bool) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.ends = append(p.ends, fmt.Sprint(id, " ", settled))
		},
		keep: func(_ context.Context, l letter) error {
			p.mu.Lock()
			defer p.mu.Unlock()
			if p.broke == nil {
				p.kept = append(p.kept, l)
			}
			return p.broke
		},
	})
}

func (p *script) wantEnds(t *testing.T, want ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !slices.Equal(p.ends, want) {
		t.Errorf("ended: %q, want %q", p.ends, want)
	}
}

func (p *script) wantKept(t *testing.T, want ...string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	var got []string
	for _, l := range p.kept {
		got = append(got, string(l.reason)+" "+l.user)
	}
	if !slices.Equal(got, want) {
		t.Errorf("put aside: %q, want %q", got, want)
	}
}

func says(code connect.Code, reason pushv1.Reason) error {
	return pushv1.NewError(code, &pushv1.ErrorDetail{Reason: reason}, errors.New("as the test says"))
}

// What becomes of a message whose push always ends like this: how often it is tried, and why it is put aside; "" where it is tried for ever.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		name  string
		err   error
		tries int
		ends  reason
	}{
		{"unsettled", says(connect.CodeAborted, pushv1.Reason_UNSETTLED), 3, isExhausted},
		{"time is over", context.DeadlineExceeded, 3, isExhausted},
		{"an internal error", says(connect.CodeInternal, 0), 3, isExhausted},
		{"a full queue", says(connect.CodeResourceExhausted, pushv1.Reason_OVERLOADED), 3, isExhausted},
		{"overtaken", says(connect.CodeFailedPrecondition, pushv1.Reason_OVERTAKEN), 3, isExhausted},
		{"too large", says(connect.CodeResourceExhausted, 0), 1, isRefused},
		{"invalid", says(connect.CodeInvalidArgument, 0), 1, isRefused},
		{"the id came before", says(connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED), 1, isReused},
		{"nobody is up", says(connect.CodeUnavailable, pushv1.Reason_NO_MEMBERS), 0, ""},
		{"the home is away", says(connect.CodeUnavailable, pushv1.Reason_HOME_AWAY), 0, ""},
		{"a wrong token", says(connect.CodeUnauthenticated, 0), 0, ""},
		{"no push service", says(connect.CodeUnimplemented, 0), 0, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := play(t, Config{Tries: 3}, func(string, sender.Message) (int, error) { return 0, test.err })
				p.give("m1", `{"user":"alice"}`)
				time.Sleep(time.Hour)
				synctest.Wait()
				if test.ends == "" {
					if len(p.calls) < 100 || len(p.ends) > 0 {
						t.Errorf("after an hour: %d tries, ended %q", len(p.calls), p.ends)
					}
					p.drain()
					p.idle()
					p.wantEnds(t, "m1 false")
					return
				}
				p.idle()
				p.wantEnds(t, "m1 true")
				p.wantKept(t, string(test.ends)+" alice")
				if len(p.calls) != test.tries {
					t.Errorf("%d tries, want %d", len(p.calls), test.tries)
				}
				for _, call := range p.calls {
					if call != `alice {"user":"alice"} m1` {
						t.Errorf("%q", call)
					}
				}
			})
		})
	}
}

// Of many users only those are tried again whose outcome is not certain, and only theirs is parked.
func TestSomeOfManyUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, Config{Tries: 2, DeadLetterOffline: true}, func(user string, _ sender.Message) (int, error) {
			switch user {
			case "a":
				return 1, nil
			case "b":
				return 0, nil
			default:
				return 0, says(connect.CodeAborted, pushv1.Reason_UNSETTLED)
			}
		})
		p.give("m1", `{"user":["a","b","c","a"]}`)
		time.Sleep(time.Hour)
		p.wantEnds(t, "m1 true")
		p.wantKept(t, "offline b", "exhausted c")
		want := []string{"a", "b", "c", "c"}
		for i, call := range p.calls {
			if !strings.HasPrefix(call, want[i]+" ") {
				t.Errorf("calls %q", p.calls)
			}
		}
	})
}

// A user's messages keep their order through retries, and hold up nobody else's.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failures := 3
		p := play(t, Config{}, func(user string, m sender.Message) (int, error) {
			if strings.Contains(string(m.Data), `"alice","n":1`) && failures > 0 {
				failures--
				return 0, says(connect.CodeAborted, pushv1.Reason_UNSETTLED)
			}
			time.Sleep(time.Second)
			return 1, nil
		})
		p.give("m1", `{"user":"alice","n":1}`)
		p.give("m2", `{"user":["alice","bob"],"n":2}`)
		p.give("m3", `{"user":"bob","n":3}`)
		p.give("m4", `{"user":"carol","n":4}`)
		time.Sleep(time.Second) // the first three have waited for a random time besides
		synctest.Wait()
		p.wantEnds(t, "m4 true")
		time.Sleep(time.Hour)
		p.wantEnds(t, "m4 true", "m1 true", "m2 true", "m3 true")
	})
}

// A broadcast that some members have not answered is made again, with the same id.
func TestBroadcastUntilAllAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ids []string
		p := play(t, Config{User: "json:user,all"}, func(user string, m sender.Message) (int, error) {
			ids = append(ids, user+" "+m.ID)
			if len(ids) == 1 {
				return -1, nil
			}
			return 5, nil
		})
		p.give("m1", `{}`)
		time.Sleep(time.Minute)
		p.wantEnds(t, "m1 true")
		if !slices.Equal(ids, []string{"* m1", "* m1"}) {
			t.Errorf("%q", ids)
		}
	})
}

// A message is not acknowledged before it is kept where it is put aside.
func TestPutAsideFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, Config{}, nil)
		p.broke = errors.New("away")
		p.give("m1", `nonsense`)
		time.Sleep(time.Minute)
		p.wantEnds(t)
		p.mu.Lock()
		p.broke = nil
		p.mu.Unlock()
		time.Sleep(time.Minute)
		p.wantEnds(t, "m1 true")
		p.wantKept(t, "malformed ")
	})
}

// A drain lets the try under way come to its end, and leaves what waits behind it to the broker.
func TestDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, Config{}, func(string, sender.Message) (int, error) { time.Sleep(3 * time.Second); return 1, nil })
		p.give("m1", `{"user":"alice","n":1}`)
		p.give("m2", `{"user":"alice","n":2}`)
		time.Sleep(time.Second)
		p.drain()
		synctest.Wait()
		p.wantEnds(t, "m2 false")
		p.idle()
		p.wantEnds(t, "m2 false", "m1 true")
	})
}

// No more than so many messages are taken; the next one waits for room.
func TestInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := play(t, Config{InFlight: 2}, func(string, sender.Message) (int, error) { time.Sleep(time.Second); return 1, nil })
		start := time.Now()
		for i := range 5 {
			p.give(fmt.Sprint("m", i), fmt.Sprintf(`{"user":"u%d"}`, i))
		}
		if waited := time.Since(start); waited != 2*time.Second {
			t.Errorf("taking five took %v, want 2s", waited)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		p.idle()
		p.slots <- struct{}{}
		p.slots <- struct{}{}
		if p.take(ctx, &message{}) {
			t.Error("taken without room, after the end")
		}
	})
}

// Where the broker gives no id, all tries of this process carry the same, and no other message has it.
func TestUnnamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		p := play(t, Config{}, func(string, sender.Message) (int, error) {
			if n++; n == 1 {
				return 0, says(connect.CodeAborted, pushv1.Reason_UNSETTLED)
			}
			return 1, nil
		})
		p.give("", `{"user":"alice"}`)
		time.Sleep(time.Minute)
		p.give("", `{"user":"alice"}`)
		p.idle()
		if len(p.calls) != 3 || p.calls[0] != p.calls[1] || p.calls[1] == p.calls[2] || strings.HasSuffix(p.calls[0], " ") {
			t.Errorf("%q", p.calls)
		}
	})
}
