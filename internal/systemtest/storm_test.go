package systemtest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// stormVariable says where the clients of a storm connect, in a process that is nothing but them.
const stormVariable = "SELVEDGE_STORM_AT"

// stormed is what became of the clients of a storm.
type stormed struct {
	In, Shed, Failed int
	After            map[int]int // clients that were shed, by the seconds that they were told to wait
	Took             time.Duration
}

// TestReconnectStorm has clients connect all at once to an edge that lets in a fifth of them in a second, and to nginx, which lets in all it can.
// Old sessions go on, who is shed comes again when told to, and all are in at the end. SELVEDGE_STORM is their number.
func TestReconnectStorm(t *testing.T) {
	clients := 700
	if text := os.Getenv("SELVEDGE_STORM"); text != "" {
		var err error
		if clients, err = strconv.Atoi(text); err != nil || clients < 100 {
			t.Fatalf("SELVEDGE_STORM=%s: want a number of clients, at least 100", text)
		}
	}
	if addr := os.Getenv(stormVariable); addr != "" {
		got, open := storm(addr, clients)
		if err := json.NewEncoder(os.Stdout).Encode(got); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, os.Stdin) // they stay until they are told to go
		for _, conn := range open {
			conn.Close()
		}
		return
	}
	c := newCluster(t, 2, 0)
	config := filepath.Join(t.TempDir(), "edge.yaml")
	writeFile(t, config, fmt.Sprintf("listen: [{addr: \"127.0.0.1:0\"}]\nlimits: {upgrades_per_second: %d}\n", clients/5))
	edge := c.addEdge("edge", "--config", config, "--consul", c.consul.Addr)
	edge.awaitReady()
	http.DefaultClient.CloseIdleConnections()
	c.awaitRing(2)
	nginx := runNginx(t, fmt.Sprintf(`worker_rlimit_nofile 20000; events { worker_connections 19000; } http {
		upstream members { hash $arg_user consistent; server %s; server %s; }
		server { listen 80; location / { proxy_pass http://members; proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_set_header X-Selvedge-User $arg_user; } } }`,
		c.backends["b1"].addr, c.backends["b2"].addr))

	noise := 100 * time.Millisecond // clients and others share the processors; more, where nginx's old sessions wait longer
	for _, side := range []struct{ name, addr string }{{"nginx", nginx}, {"the edge", edge.addr}} {
		old := oldSessions(t, side.addr)
		before := old.p99(func() { <-time.After(2 * time.Second) })
		var got stormed
		var leave func()
		during := old.p99(func() { got, leave = stormProcess(t, side.addr) })
		leave()
		old.end()
		t.Logf("%s: %d of %d in after %v, %d shed, %d failed at first; old sessions' p99 %v, before %v",
			side.name, got.In, clients, ms(got.Took), got.Shed, got.Failed, during, before)
		if side.name == "nginx" {
			noise = max(noise, during)
			continue
		}
		if n := old.ended.Load(); n > 0 {
			t.Errorf("%d old sessions ended", n)
		}
		if got.In != clients || got.Failed > 0 || got.Shed < clients/5 {
			t.Errorf("%+v; want all in, and some shed", got)
		}
		for seconds := 1; seconds <= 5; seconds++ {
			if got.After[seconds] < got.Shed/20 {
				t.Errorf("waits are not spread over 1 to 5 s: %v", got.After)
				break
			}
		}
		if during > max(3*before, noise) {
			t.Errorf("old sessions' p99 was %v in the storm, %v before", during, before)
		}
	}
}

// stormProcess runs the clients of a storm in a process of their own: descriptors are limited by process. It comes after all others: clients
// have machines of their own. It returns when all are in; they stay until leave is called.
func stormProcess(t *testing.T, addr string) (got stormed, leave func()) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nice", "-n", "19", os.Args[0], "-test.run=^TestReconnectStorm$", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), stormVariable+"="+addr)
	stay, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	unmarshal(t, first, &got)
	return got, func() {
		stay.Close()
		rest, _ := io.ReadAll(lines)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, rest)
		}
	}
}

// storm connects clients at once, each again and again until it is in. It returns when all are, or after a minute.
func storm(addr string, clients int) (total stormed, open []net.Conn) {
	deadline := time.Now().Add(time.Minute)
	total.After = make(map[int]int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	gate := make(chan struct{})
	for i := range clients {
		wg.Go(func() {
			<-gate
			for time.Now().Before(deadline) {
				conn, seconds, err := tryOnce(addr, i, deadline)
				mu.Lock()
				switch {
				case err != nil:
					total.Failed++
				case conn == nil:
					total.Shed++
					total.After[seconds]++
				default:
					total.In++
					open = append(open, conn)
					mu.Unlock()
					return
				}
				mu.Unlock()
				wait := time.Duration(seconds) * time.Second // as it was told
				if err != nil {
					wait = time.Duration(rand.Int64N(int64(time.Second)))
				}
				<-time.After(wait)
			}
		})
	}
	began := time.Now()
	close(gate)
	wg.Wait()
	total.Took = time.Since(began)
	return total, open
}

// tryOnce tries once: a connection that is in, or the seconds to wait of one that was shed.
func tryOnce(addr string, i int, deadline time.Time) (in net.Conn, seconds int, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if in == nil {
			conn.Close()
		}
	}()
	_ = conn.SetDeadline(deadline)
	if _, err = io.WriteString(conn, fmt.Sprintf("GET /echo?user=user-%d HTTP/1.1\r\nHost: a\r\n%s\r\n", i, upgradeFields)); err != nil {
		return nil, 0, err
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, 1024), nil)
	if err != nil {
		return nil, 0, err
	}
	answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusSwitchingProtocols:
		return conn, 0, nil
	case http.StatusServiceUnavailable:
		seconds, err = strconv.Atoi(answer.Header.Get("Retry-After"))
		return nil, seconds, err
	}
	return nil, 0, fmt.Errorf("answered %s", answer.Status)
}

// elders are sessions that were there before the storm.
type elders struct {
	t     *testing.T
	conns []net.Conn
	ended atomic.Int64 // behind nginx some do: backends move users whom its hash brings to others than the ring does
}

func oldSessions(t *testing.T, addr string) *elders {
	t.Helper()
	old := &elders{t: t}
	for i := range 20 {
		conn, early, _, err := ws.Dialer{Timeout: 10 * time.Second}.Dial(t.Context(), fmt.Sprintf("ws://%s/echo?user=old-%d", addr, i))
		if err != nil || early != nil {
			t.Fatal(err, early)
		}
		t.Cleanup(func() { conn.Close() })
		old.conns = append(old.conns, conn)
	}
	return old
}

func (old *elders) end() {
	for _, conn := range old.conns {
		conn.Close()
	}
}

// p99 has the sessions say something every 20 ms while do runs, and returns how long 99 of 100 answers took at most.
func (old *elders) p99(do func()) time.Duration {
	old.t.Helper()
	stop := make(chan struct{})
	var mu sync.Mutex
	var took []time.Duration
	var wg sync.WaitGroup
	for _, conn := range old.conns {
		wg.Go(func() {
			_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
			for tick := time.NewTicker(20 * time.Millisecond); ; {
				select {
				case <-stop:
					tick.Stop()
					return
				case <-tick.C:
				}
				sent := time.Now()
				err := ws.WriteFrame(conn, ws.MaskFrame(ws.NewTextFrame([]byte("still here"))))
				if err == nil {
					_, _, err = readFrame(conn)
				}
				if err != nil {
					old.ended.Add(1)
					return
				}
				mu.Lock()
				took = append(took, time.Since(sent))
				mu.Unlock()
			}
		})
	}
	do()
	close(stop)
	wg.Wait()
	return quantile(sorted(took), 0.99)
}
