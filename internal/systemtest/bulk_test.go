package systemtest

import (
	"bufio"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	bulkBytes        = 1 << 30
	keepAliveClients = 1000
	// edgeMostBytes is what the edge's process may take for all of it, at its peak: a small part of what passes.
	edgeMostBytes = 160 << 20
)

// Bodies of 1 GiB both ways, server-sent events (for 5 s, or for what SELVEDGE_SSE says) and 1,000 clients that keep their connections pass through
// the edge at the same time, whole, in memory that none of it drives up.
func TestBulkThroughTheEdge(t *testing.T) {
	block := make([]byte, 1<<20-1) // no multiple of anybody's buffer
	_, _ = rand.NewChaCha8([32]byte{7}).Read(block)
	left := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/up":
			sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
			n, err := io.Copy(sum, r.Body)
			_, _ = fmt.Fprintf(w, "%d %x %v", n, sum.Sum32(), err)
		case "/down":
			w.Header().Set("Content-Length", fmt.Sprint(bulkBytes))
			_, _ = io.Copy(w, &repeated{block: block, left: bulkBytes})
		case "/events":
			defer close(left)
			w.Header().Set("Content-Type", "text/event-stream")
			for i := 0; r.Context().Err() == nil; i++ {
				_, _ = fmt.Fprintf(w, "data: %d\n\n", i)
				_ = http.NewResponseController(w).Flush()
				select {
				case <-r.Context().Done():
				case <-time.After(100 * time.Millisecond):
				}
			}
		default:
			_, _ = io.WriteString(w, r.URL.Path)
		}
	}))
	defer s.Close()
	// Time is not what this is about: 1,000 connections at once take a while on a machine that is busy.
	config := filepath.Join(t.TempDir(), "edge.yaml")
	text := fmt.Sprintf("backends: b1=%s\nservices: {default: {connect_timeout: 60s}}\n", s.Listener.Addr())
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	door := startEdge(t, "edge", "--config", config)
	transport := &http.Transport{DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport}
	url := "http://" + door.addr

	var work sync.WaitGroup
	work.Go(func() {
		body := &repeated{block: block, left: bulkBytes, sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
		answer, err := client.Post(url+"/up?user=a", "", body)
		if err != nil {
			t.Errorf("upload: %v", err)
			return
		}
		defer answer.Body.Close()
		got, err := io.ReadAll(answer.Body)
		if want := fmt.Sprintf("%d %x <nil>", bulkBytes, body.sum.Sum32()); err != nil || string(got) != want {
			t.Errorf("upload: the backend got %s, %v; want %s", got, err, want)
		}
	})
	work.Go(func() {
		answer, err := client.Get(url + "/down?user=b")
		if err != nil {
			t.Errorf("download: %v", err)
			return
		}
		defer answer.Body.Close()
		want, got := crc32.New(crc32.MakeTable(crc32.Castagnoli)), crc32.New(crc32.MakeTable(crc32.Castagnoli))
		_, _ = io.Copy(want, &repeated{block: block, left: bulkBytes})
		if n, err := io.Copy(got, answer.Body); err != nil || n != bulkBytes || got.Sum32() != want.Sum32() {
			t.Errorf("download: %d bytes with sum %x, %v; want %x", n, got.Sum32(), err, want.Sum32())
		}
	})
	work.Go(func() { readEvents(t, client, url) })
	work.Go(func() { keepConnections(t, door.addr) })
	work.Wait()
	select {
	case <-left:
	case <-time.After(20 * time.Second):
		t.Error("the backend still sends events to a client that has left")
	}
	peak := peakMemory(t, door.cmd.Process.Pid)
	t.Logf("the edge's memory at its peak: %d MiB", peak>>20)
	if peak > edgeMostBytes {
		t.Errorf("the edge took %d MiB, want at most %d", peak>>20, edgeMostBytes>>20)
	}
}

// repeated reads as block again and again.
type repeated struct {
	block    []byte
	at, left int
	sum      hash.Hash32 // of what has been read; nil: nobody wants it
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.left)], r.block[r.at:])
	r.at, r.left = (r.at+n)%len(r.block), r.left-n
	if r.sum != nil {
		_, _ = r.sum.Write(p[:n])
	}
	return n, nil
}

// readEvents fails where an event is lost, or does not come for 10 s.
func readEvents(t *testing.T, client *http.Client, url string) {
	lasting := 5 * time.Second
	if text := os.Getenv("SELVEDGE_SSE"); text != "" {
		var err error
		if lasting, err = time.ParseDuration(text); err != nil {
			t.Errorf("SELVEDGE_SSE: %v", err)
			return
		}
	}
	answer, err := client.Get(url + "/events?user=c")
	if err != nil {
		t.Errorf("events: %v", err)
		return
	}
	defer answer.Body.Close()
	late := time.AfterFunc(10*time.Second, func() { answer.Body.Close() })
	defer late.Stop()
	began, lines := time.Now(), bufio.NewReader(answer.Body)
	for i := 0; time.Since(began) < lasting; i++ {
		line, err := lines.ReadString('\n')
		if blank, _ := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) || blank != "\n" {
			t.Errorf("event %d after %v: %q, %v", i, time.Since(began), line, err)
			return
		}
		late.Reset(10 * time.Second)
	}
}

// keepConnections has all clients connected at once, each asking several times on its one connection.
func keepConnections(t *testing.T, addr string) {
	var all, round sync.WaitGroup
	round.Add(keepAliveClients)
	for i := range keepAliveClients {
		all.Go(func() {
			conn, err := net.DialTimeout("tcp", addr, 30*time.Second)
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				round.Done()
				return
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
			br := bufio.NewReaderSize(conn, 512)
			for turn := range 3 {
				if turn == 1 { // everybody is connected, and has been answered
					round.Done()
					round.Wait()
				}
				path := fmt.Sprintf("/%d/%d", i, turn)
				_, _ = fmt.Fprintf(conn, "GET %s?user=u%d HTTP/1.1\r\nHost: x\r\n\r\n", path, i)
				body := ""
				answer, err := http.ReadResponse(br, nil)
				if err == nil {
					var text []byte
					text, err = io.ReadAll(answer.Body)
					answer.Body.Close()
					body = string(text)
				}
				if err != nil || body != path {
					t.Errorf("client %d, request %d: %q, %v", i, turn, body, err)
					if turn == 0 {
						round.Done()
					}
					return
				}
			}
		})
	}
	all.Wait()
}

// peakMemory is the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skip("reads memory in /proc")
	}
	for line := range strings.Lines(string(text)) {
		var kib int
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM in /proc/PID/status")
	return 0
}
