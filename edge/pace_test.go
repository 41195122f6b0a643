package edge

import (
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
	"github.com/selvedge/selvedge/internal/testkit"
	"github.com/selvedge/selvedge/internal/tunnel"
)

// More than are let in at once wait for their turn, and those who would wait for more than a second are turned away.
func TestPaceIsAQueue(t *testing.T) {
	const rate, clients = 20, 60
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Admission: Admission{UpgradesPerSecond: rate}})
	e.nothingLeft(func() {
		var mu sync.Mutex
		var in []time.Duration
		shed := 0
		var wg sync.WaitGroup
		all := make([]*client, clients)
		for i := range all {
			all[i] = e.dial()
		}
		began := time.Now()
		for _, c := range all {
			wg.Go(func() {
				say(c, "%s", upgradeTo("/ws?user=a"))
				answer, err := http.ReadResponse(c.br, nil) //nolint:bodyclose // the connection ends
				took := time.Since(began)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err != nil:
					t.Error(err)
				case answer.StatusCode == http.StatusSwitchingProtocols:
					in = append(in, took)
				case answer.StatusCode == http.StatusServiceUnavailable:
					shed++
				default:
					t.Errorf("answered %s", answer.Status)
				}
			})
		}
		wg.Wait()
		// A second's worth waits, a hundredth of one does not; what came late because this machine is busy can be let in besides.
		most := rate + 1 + int(rate*time.Since(began).Seconds()) + 1
		if len(in) < rate || len(in) > most || len(in)+shed != clients {
			t.Errorf("%d are in and %d were shed, want %d to %d in", len(in), shed, rate, most)
		}
		if last := slices.Max(append(in, 0)); last < time.Second/2 {
			t.Errorf("the last was in after %v; they are to be let in over a second", last)
		}
		e.hangUp()
	})
}

// Those who wait come in one by one, not in the steps of the loop's timers.
func TestPaceIsSmooth(t *testing.T) {
	const rate, clients = 200, 100
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Admission: Admission{UpgradesPerSecond: rate}})
	e.nothingLeft(func() {
		all := make([]*client, clients)
		in := make([]time.Duration, clients)
		for i := range all {
			all[i] = e.dial()
		}
		began := time.Now()
		var wg sync.WaitGroup
		for i, c := range all {
			wg.Go(func() {
				say(c, "%s", upgradeTo("/ws?user=a"))
				got, err := http.ReadResponse(c.br, nil) //nolint:bodyclose // the connection ends
				if err != nil || got.StatusCode != http.StatusSwitchingProtocols {
					t.Errorf("answered %v, %v", got, err)
				}
				in[i] = time.Since(began)
			})
		}
		wg.Wait()
		slices.Sort(in)
		gaps := make([]time.Duration, clients-1)
		for i := range gaps {
			gaps[i] = in[i+1] - in[i]
		}
		slices.Sort(gaps)
		if middle := gaps[len(gaps)/2]; middle < time.Second/rate/5 {
			t.Errorf("half of them are in within %v of the one before; their turns are %v apart", middle, time.Second/rate)
		}
		e.hangUp()
	})
}

// Who is turned away for there being too many reads the same answer from the reactor as from net/http, also if it has sent more at once.
func TestShedOnTheReactor(t *testing.T) {
	fast(t)
	var answers []answer
	for _, slow := range []bool{false, true} {
		e := start(t, Config{Membership: members(listenBackend(t, echo("b0"))), Sessions: 1}, func(e *Edge) { e.slow = slow })
		e.nothingLeft(func() {
			if got := e.send(upgradeTo("/ws?user=a")).head(); got.StatusCode != http.StatusSwitchingProtocols {
				t.Fatalf("the first: %s", got.Status)
			}
			c := e.send(upgradeTo("/ws?user=a") + strings.Repeat("what it sends at once ", 1000))
			got := c.head()
			text := make([]byte, got.ContentLength)
			if _, err := got.Body.Read(text); len(text) == 0 || !strings.Contains(string(text), refuseFull.text) {
				t.Errorf("%q, %v", text, err)
			}
			if _, err := c.br.ReadByte(); err != io.EOF && !slow { // a reset can take the answer with it; net/http sends one
				t.Errorf("ended with %v, want a FIN", err)
			}
			answers = append(answers, got)
			e.hangUp()
		})
		if n := e.metric(`selvedge_edge_refusals_total{reason="full"}`); n != "1" {
			t.Errorf("%s are counted as refused", n)
		}
		if n := e.metric(`selvedge_edge_upgrades_total{code="503",service="default"}`); !slow && e.handedOver() != 0 {
			t.Errorf("%d were handed over to net/http, and %s upgrades counted", e.handedOver(), n)
		}
	}
	a, b := answers[0], answers[1]
	for _, h := range []http.Header{a.Header, b.Header} {
		if s, err := strconv.Atoi(h.Get("Retry-After")); err != nil || s < 1 || s > 5 {
			t.Errorf("Retry-After %q", h.Get("Retry-After"))
		}
		if _, err := http.ParseTime(h.Get("Date")); err != nil {
			t.Errorf("Date %q", h.Get("Date"))
		}
		h.Del("Retry-After")
		h.Del("Date")
	}
	if a.Status != b.Status || a.Close != b.Close || a.ContentLength != b.ContentLength || len(a.Header) != len(b.Header) {
		t.Errorf("the reactor answers %s %v, net/http %s %v", a.Status, a.Header, b.Status, b.Header)
	}
	for name := range b.Header {
		if a.Header.Get(name) != b.Header.Get(name) {
			t.Errorf("%s: %q from the reactor, %q from net/http", name, a.Header.Get(name), b.Header.Get(name))
		}
	}
}

// turnTaker notes when its message comes.
type turnTaker func()

func (f turnTaker) Ready(ev reactor.Events) {
	if ev&reactor.Readable != 0 {
		f()
	}
}

// However many openings are ready, what a session has to say waits for a few of them.
func TestOpeningsGiveWay(t *testing.T) {
	fast(t)
	const clients = 100 // well below what the loop takes from the kernel at once
	e := start(t, Config{Membership: members(listenBackend(t, echo("b0")))})
	loops, err := reactor.New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = loops.Close() })
	relay, err := tunnel.NewRelay(tunnel.Config{Reactor: loops})
	if err != nil {
		t.Fatal(err)
	}
	e.relay.Store(relay) // one loop for all
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var fds []int
	for range clients {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		e.client(conn)
		accepted, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := reactor.Detach(accepted)
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, fd)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.SetNonblock(pair[0], true)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(pair[0]); _ = unix.Close(pair[1]) }()

	loop := loops.Loop()
	l := newLane(&intake{edge: e.Edge, loop: loop}, loop)
	registered, goOn, begun := make(chan error, 1), make(chan struct{}), make(chan int, 1)
	loop.Post(func() {
		for _, fd := range fds {
			l.intake.openings.Add(1)
			l.open(fd, e.clients.open[0].LocalAddr().(*net.TCPAddr).AddrPort())
		}
		var session reactor.Registration
		var err error
		session, err = loop.Register(pair[0], turnTaker(func() {
			n := clients
			for o := range l.openings {
				if o.stage == arriving {
					n--
				}
			}
			begun <- n
			session.Unregister()
		}))
		registered <- err
		<-goOn // all of what follows is in the kernel's hands when the loop looks again
	})
	if err := <-registered; err != nil {
		t.Fatal(err)
	}
	for _, conn := range e.clients.open {
		say(conn, "%s", upgradeTo("/ws?user=a"))
	}
	if _, err := unix.Write(pair[1], []byte("a message")); err != nil {
		t.Fatal(err)
	}
	close(goOn)
	if n := <-begun; n > clients/10 {
		t.Errorf("%d openings went before the session, want a few", n)
	}
	testkit.Eventually(t, patience, func() bool { return e.Sessions() == clients }, "all are in")
	e.hangUp()
	testkit.Eventually(t, patience, func() bool { return e.Sessions() == 0 }, "all have gone")
}
