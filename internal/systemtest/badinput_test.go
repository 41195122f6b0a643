package systemtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/testkit"
)

const upgradeFields = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"

// What is wrong is answered with the contract's code and a JSON body, and leaves nothing behind.
func TestBadInput(t *testing.T) {
	good := "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n"
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	nobody := startEdge(t, "edge to nobody", "--backends", "gone="+gone.Addr().String())
	config := t.TempDir() + "/edge.yaml"
	writeFile(t, config, "services: {default: {response_timeout: 300ms}}\n")
	to := func(name, answer string) *frontDoor {
		return startEdge(t, "edge to a backend that "+name, "--config", config, "--backends", "b1="+fakeBackend(t, answer))
	}
	sane := to("works", fmt.Sprintf(good, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="))
	cases := []struct {
		name   string
		edge   *frontDoor
		target string
		fields string
		status int
		says   string
	}{
		{"no user id", sane, "/ws", upgradeFields, 400, "user"},
		{"no user id, plain", sane, "/whoami", "", 400, "user"},
		{"a 300-byte id", sane, "/ws?user=" + strings.Repeat("x", 300), upgradeFields, 400, "256"},
		{"control characters", sane, "/ws?user=a%0Ab", upgradeFields, 400, "control"},
		{"no UTF-8", sane, "/ws?user=%ff%fe", upgradeFields, 400, "UTF-8"},
		{"two ids", sane, "/ws?user=a&user=b", upgradeFields, 400, "user"},
		{"an oversized head", sane, "/ws?user=alice", upgradeFields + "X-Big: " + strings.Repeat("x", 20<<10) + "\r\n", 431, ""},
		{"a huge head", sane, "/ws?user=alice", upgradeFields + "X-Big: " + strings.Repeat("x", 1<<20) + "\r\n", 431, ""},
		{"a backend that answers 200", to("answers 200", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "/ws?user=alice", upgradeFields, 502, ""},
		{"a wrong accept key", to("answers with a wrong accept key", fmt.Sprintf(good, "AAAAAAAAAAAAAAAAAAAAAAAAAAA=")), "/ws?user=alice", upgradeFields, 502, "Accept"},
		{"garbage", to("answers garbage", "220 smtp.example ESMTP\r\n"), "/ws?user=alice", upgradeFields, 502, ""},
		{"nothing", to("answers nothing", ""), "/ws?user=alice", upgradeFields, 504, ""},
		{"no backend at all", nobody, "/ws?user=alice", upgradeFields, 503, ""},
	}
	edges := make(map[*frontDoor]usage)
	for _, test := range cases {
		if _, seen := edges[test.edge]; !seen {
			ask(t, test.edge.addr, "/whoami", "") // whatever is opened once and kept
			edges[test.edge] = test.edge.usage()
		}
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			for range 20 {
				status, header, body := ask(t, test.edge.addr, test.target, test.fields)
				var said struct {
					Error     string `json:"error"`
					RequestID string `json:"request_id"`
				}
				if err := json.Unmarshal(body, &said); err != nil {
					t.Fatalf("%d: body %q is no JSON: %v", status, body, err)
				}
				if status != test.status || said.Error == "" || said.RequestID == "" || !strings.Contains(said.Error, test.says) {
					t.Fatalf("%d, %q; want %d and %q", status, body, test.status, test.says)
				}
				if test.status == 503 && header.Get("Retry-After") == "" {
					t.Error("no Retry-After")
				}
			}
		})
	}
	for edge, before := range edges {
		testkit.Eventually(t, 20*time.Second, func() error {
			if now := edge.usage(); now.descriptors > before.descriptors || now.goroutines > before.goroutines {
				return fmt.Errorf("%s: %v, at the start %v; its goroutines now and then:\n%s\n%s", edge.name, now, before, now.stacks, before.stacks)
			}
			return nil
		}, "descriptors and goroutines to be back where they were")
	}
}

// usage is what a process holds.
type usage struct {
	descriptors, goroutines int
	stacks                  string // of the goroutines, equal ones counted
}

func (u usage) String() string {
	return fmt.Sprintf("%d descriptors, %d goroutines", u.descriptors, u.goroutines)
}

func (f *frontDoor) usage() usage {
	f.t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", f.cmd.Process.Pid))
	if err != nil {
		f.t.Fatal(err)
	}
	u := usage{descriptors: len(entries), stacks: string(f.page("/debug/pprof/goroutine?debug=1"))}
	if _, err := fmt.Sscanf(u.stacks, "goroutine profile: total %d", &u.goroutines); err != nil || u.goroutines == 0 {
		f.t.Fatalf("the profile does not tell the number of goroutines: %v, %.100q", err, u.stacks)
	}
	return u
}

// metric adds up the samples of a metric whose labels hold a text.
func (f *frontDoor) metric(name, labels string) (sum float64) {
	f.t.Helper()
	for lines := bufio.NewScanner(bytes.NewReader(f.page("/metrics"))); lines.Scan(); {
		sample, found := strings.CutPrefix(lines.Text(), name)
		if !found || !strings.HasPrefix(sample, "{") && !strings.HasPrefix(sample, " ") || !strings.Contains(sample, labels) {
			continue
		}
		value, err := strconv.ParseFloat(sample[strings.LastIndexByte(sample, ' ')+1:], 64)
		if err != nil {
			f.t.Fatal(err)
		}
		sum += value
	}
	return sum
}

// page is what the admin listener has at a path; the connection does not outlive it.
func (f *frontDoor) page(path string) []byte {
	f.t.Helper()
	request, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, "http://"+f.admin+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	request.Close = true
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		f.t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return body
}

// ask sends one request and reads the answer; the connection is its own.
func ask(t testing.TB, addr, target, fields string) (status int, header http.Header, body []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	// A server that refuses a head need not read all of it: the write may fail, and the answer is there all the same.
	_, writeErr := io.WriteString(conn, "GET "+target+" HTTP/1.1\r\nHost: chat.example\r\n"+fields+"\r\n")
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("no answer: %v (write: %v)", err, writeErr)
	}
	defer response.Body.Close()
	if body, err = io.ReadAll(response.Body); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, response.Header, body
}

// fakeBackend answers each request's head with the same bytes, and then waits until the other side is done.
func fakeBackend(t testing.TB, answer string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				br := bufio.NewReader(conn)
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				_, _ = io.WriteString(conn, answer)
				_, _ = io.Copy(io.Discard, br)
			}()
		}
	}()
	return ln.Addr().String()
}

func writeFile(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
