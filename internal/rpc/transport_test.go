package rpc_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/selvedge/selvedge/internal/rpc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves handler and returns its address.
func start(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := rpc.Server(handler)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ln) }()
	t.Cleanup(func() { _ = server.Close(); <-ended })
	return ln.Addr().String()
}

func call(client *http.Client, addr string) (string, error) {
	response, err := client.Post("http://"+addr+"/x", "text/plain", strings.NewReader("hi"))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	return string(text), err
}

func TestClientAndServer(t *testing.T) {
	var mu sync.Mutex
	conns := make(map[string]bool)
	addr := start(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		conns[r.RemoteAddr] = true
		mu.Unlock()
		_, _ = io.WriteString(w, r.Proto+" "+r.Header.Get("Authorization"))
	})
	for token, want := range map[string]string{"": "HTTP/2.0 ", "s3cret": "HTTP/2.0 Bearer s3cret"} {
		clear(conns)
		client, closeAll := rpc.Client(token, nil)
		for range 5 {
			if got, err := call(client, addr); got != want || err != nil {
				t.Errorf("token %q: %q, %v; want %q", token, got, err, want)
			}
		}
		closeAll()
		if len(conns) != 1 {
			t.Errorf("%d connections for 5 calls", len(conns))
		}
		if _, err := call(client, addr); err == nil {
			t.Error("a call after closeAll went through")
		}
	}
	plain := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // curl
	if got, err := call(plain, addr); got != "HTTP/1.1 " || err != nil {
		t.Errorf("HTTP/1.1: %q, %v", got, err)
	}
}

func TestCloseAllEndsCallsUnderWay(t *testing.T) {
	started, gate := make(chan struct{}), make(chan struct{})
	addr := start(t, func(http.ResponseWriter, *http.Request) { close(started); <-gate })
	client, closeAll := rpc.Client("", nil)
	result := make(chan error, 1)
	go func() { _, err := call(client, addr); result <- err }()
	<-started
	closeAll()
	if err := <-result; err == nil {
		t.Error("the call succeeded")
	}
	close(gate)
}

// A peer that goes silent in the middle of a call, its host still acknowledging, is found out by pings and not only by deadlines.
func TestHungPeerIsFoundOut(t *testing.T) {
	gate := make(chan struct{})
	defer close(gate)
	target := start(t, func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-gate:
		case <-r.Context().Done():
		}
	})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Between the two: passes the client's bytes on, and of the answers only the first, the server's preface.
	var wg sync.WaitGroup
	wg.Go(func() {
		in, err := ln.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			t.Error(err)
			return
		}
		wg.Go(func() { _, _ = io.Copy(out, in); out.Close() })
		preface := make([]byte, 4096)
		n, _ := out.Read(preface)
		_, _ = in.Write(preface[:n])
		_, _ = io.Copy(io.Discard, out) // it hangs
		in.Close()
	})
	defer wg.Wait()
	defer ln.Close()
	client, closeAll := rpc.Client("", nil)
	defer closeAll()
	begin := time.Now()
	if _, err := call(client, ln.Addr().String()); err == nil {
		t.Fatal("a hung peer answered")
	}
	if took := time.Since(begin); took > 15*time.Second {
		t.Errorf("found out after %v", took)
	} else {
		t.Logf("found out after %v", took)
	}
}
