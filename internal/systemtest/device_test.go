package systemtest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/selvedge/selvedge/internal/testkit"
)

// device is one WebSocket of a user, as an app would hold it: when it is closed it connects again at once. It logs what it got.
type device struct {
	user string
	url  string
	opts deviceOptions

	mu       sync.Mutex
	received map[string]int // messages, by text
	closes   []closing
	backend  string // that holds it now; "" while it is not connected
	conns    []*connection
}

// connection is one of a device's connections, as the device saw it.
type connection struct {
	opened time.Time      // when it got the hello
	ended  time.Time      // zero: it has not
	got    map[string]int // messages, by text
}

type deviceOptions struct {
	edges []string                                                               // tried in turn
	stay  bool                                                                   // does not reconnect
	by    func(ctx context.Context, edge, target string) (url string, err error) // asks an edge where to connect; nil: to the edge
}

// closing is the end of one connection: a close frame's code and reason, or 1006.
type closing struct {
	code   ws.StatusCode
	reason string
	from   string // the backend that held it
}

// crowd is many devices.
type crowd struct {
	t       testing.TB
	devices []*device
	stop    context.CancelFunc
	wg      sync.WaitGroup
}

// online brings perUser devices of each user online, half of them through each edge, and waits until all are connected.
func online(t testing.TB, users []string, perUser int, edges ...*frontDoor) *crowd {
	t.Helper()
	var devices []*device
	for _, user := range users {
		for i := range perUser {
			var addrs []string
			for j := range edges {
				addrs = append(addrs, edges[(i+j)%len(edges)].addr)
			}
			d := &device{user: user, received: make(map[string]int), opts: deviceOptions{edges: addrs}}
			d.url = "/ws?hello=1&user=" + url.QueryEscape(user) + fmt.Sprintf("&device=d%d", i)
			devices = append(devices, d)
		}
	}
	return bringOnline(t, devices)
}

// bringOnline starts devices and waits until all are connected.
func bringOnline(t testing.TB, devices []*device) *crowd {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	c := &crowd{t: t, devices: devices, stop: stop}
	t.Cleanup(c.close)
	gate := make(chan struct{}, 64) // handshakes at once at the start; afterwards everybody for themselves
	for _, d := range c.devices {
		c.wg.Go(func() {
			gate <- struct{}{}
			first := true
			d.live(ctx, func() {
				if first {
					<-gate
					first = false
				}
			})
			if first {
				<-gate
			}
		})
	}
	c.await("all devices to be connected", 60*time.Second, func(d *device) bool { return d.held() != "" })
	return c
}

func (c *crowd) close() { c.stop(); c.wg.Wait() }

// live holds the device's connections, one after the other, until ctx ends.
func (d *device) live(ctx context.Context, tried func()) {
	for n := 0; ctx.Err() == nil; n++ {
		conn, err := d.dial(ctx, d.opts.edges[n%len(d.opts.edges)])
		if err != nil {
			tried()
			select { // the edge, or the backend behind it, is away
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		d.read(conn, tried)
		stop()
		conn.Close()
		if d.opts.stay {
			return
		}
	}
}

func (d *device) dial(ctx context.Context, edge string) (net.Conn, error) {
	dialer := ws.Dialer{Timeout: 10 * time.Second}
	to := "ws://" + edge + d.url
	if d.opts.by != nil {
		var err error
		if to, err = d.opts.by(ctx, edge, d.url); err != nil {
			return nil, err
		}
	}
	conn, early, _, err := dialer.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	if early != nil { // what came with the 101
		return &bufferedConn{conn, early}, nil
	}
	return conn, nil
}

type bufferedConn struct {
	net.Conn
	r io.Reader
}

func (c *bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

// read logs what the connection brings until it ends. The first message is the hello.
func (d *device) read(conn net.Conn, tried func()) {
	var from string
	var log *connection
	for {
		op, payload, err := readFrame(conn)
		if err == nil && op == ws.OpPing {
			answerPing(conn, payload)
			continue
		}
		if err != nil || op == ws.OpClose {
			end := closing{code: 1006, from: from}
			if err == nil {
				end.code, end.reason = ws.ParseCloseFrameData(payload)
			}
			d.mu.Lock()
			d.backend = ""
			d.closes = append(d.closes, end)
			if log != nil {
				log.ended = time.Now()
			}
			d.mu.Unlock()
			tried()
			return
		}
		if from == "" {
			var hello struct{ Hello struct{ Backend string } }
			if json.Unmarshal(payload, &hello) == nil {
				from = hello.Hello.Backend
			}
			log = &connection{opened: time.Now(), got: make(map[string]int)}
			d.mu.Lock()
			d.backend = from
			d.conns = append(d.conns, log)
			d.mu.Unlock()
			tried()
			continue
		}
		d.mu.Lock()
		d.received[string(payload)]++
		log.got[string(payload)]++
		d.mu.Unlock()
	}
}

// readFrame reads one frame of a server that sends no fragments. wsutil's reader would take 1012 for a protocol error.
func readFrame(r io.Reader) (ws.OpCode, []byte, error) {
	header, err := ws.ReadHeader(r)
	if err != nil {
		return 0, nil, err
	}
	payload := make([]byte, header.Length)
	_, err = io.ReadFull(r, payload)
	return header.OpCode, payload, err
}

// answerPing keeps a session open. An error shows at the next read.
func answerPing(w io.Writer, payload []byte) {
	_ = ws.WriteFrame(w, ws.MaskFrameInPlace(ws.NewPongFrame(payload)))
}

// held is the backend that holds the device, "" while none does.
func (d *device) held() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.backend
}

func (d *device) got(text string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.received[text]
}

// messages counts all that it got.
func (d *device) messages() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, times := range d.received {
		n += times
	}
	return n
}

func (d *device) ends() []closing {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]closing(nil), d.closes...)
}

// await waits until ok holds for every device.
func (c *crowd) await(what string, within time.Duration, ok func(*device) bool) {
	c.t.Helper()
	testkit.Eventually(c.t, within, func() error {
		missing := 0
		example := ""
		for _, d := range c.devices {
			if !ok(d) {
				missing++
				example = fmt.Sprintf("%s (at %q, ends %v)", d.user, d.held(), d.ends())
			}
		}
		if missing > 0 {
			return fmt.Errorf("%d of %d are not, such as %s", missing, len(c.devices), example)
		}
		return nil
	}, what)
}

// wantOnce fails unless every device got each text exactly once.
func (c *crowd) wantOnce(texts ...string) {
	c.t.Helper()
	for _, text := range texts {
		c.await("every device to get "+text, 10*time.Second, func(d *device) bool { return d.got(text) >= 1 })
		var twice atomic.Int64
		for _, d := range c.devices {
			if d.got(text) > 1 {
				twice.Add(1)
			}
		}
		if n := twice.Load(); n > 0 {
			c.t.Errorf("%d devices got %q more than once", n, text)
		}
	}
}

// closes counts the connections that ended.
func (c *crowd) closes() int {
	n := 0
	for _, d := range c.devices {
		n += len(d.ends())
	}
	return n
}
