package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestHealthCheckValidate(t *testing.T) {
	for says, h := range map[string]HealthCheck{
		"http to a path":   {Interval: time.Second},
		"both set":         {HTTP: "/", TCP: true},
		"starts with /":    {HTTP: "healthz"},
		"percent-encoded":  {HTTP: "/a b"},
		"timeout is negat": {TCP: true, Timeout: -1},
		"rise or fall is":  {TCP: true, Fall: -1},
	} {
		if err := h.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v; want it to say %q", h, err, says)
		}
	}
	for _, h := range []HealthCheck{{}, {HTTP: "/healthz?full=1"}, {TCP: true, Rise: 1}} {
		if err := h.Validate(); err != nil {
			t.Errorf("%+v: %v", h, err)
		}
	}
}

func dialTCP(ctx context.Context, m Member) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "tcp", m.Addr)
}

// TestProbe: what counts as well, against real servers, and what the metric calls the rest.
func TestProbe(t *testing.T) {
	release := make(chan struct{})
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/early":
			w.WriteHeader(http.StatusEarlyHints)
		case "/moved":
			http.Redirect(w, r, "/503", http.StatusFound)
		case "/503", "/404":
			var code int
			_, _ = fmt.Sscanf(r.URL.Path, "/%d", &code)
			w.WriteHeader(code)
		case "/hangs":
			<-release
		case "/host":
			if r.Host != "b1.example:"+r.URL.Query().Get("port") {
				w.WriteHeader(http.StatusMisdirectedRequest)
			}
		}
	}))
	t.Cleanup(web.Close)
	t.Cleanup(func() { close(release) })
	garbage := listen(t, func(c net.Conn) { _, _ = c.Write([]byte("SSH-2.0-x\r\n")) })
	silent := listen(t, func(c net.Conn) { <-release })
	gone := listen(t, nil)
	addr := web.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)

	const well = "well"
	tests := []struct {
		name, addr string
		check      HealthCheck
		want       string
	}{
		{"200", addr, HealthCheck{HTTP: "/"}, well},
		{"a redirect, not followed", addr, HealthCheck{HTTP: "/moved"}, well},
		{"after an interim answer", addr, HealthCheck{HTTP: "/early"}, well},
		{"the Host field", addr, HealthCheck{HTTP: "/host?port=" + port}, well},
		{"503", addr, HealthCheck{HTTP: "/503"}, "status: it answers 503"},
		{"404", addr, HealthCheck{HTTP: "/404"}, "status: it answers 404"},
		{"no answer", addr, HealthCheck{HTTP: "/hangs"}, "timeout: no answer within 100ms"},
		{"no HTTP", garbage, HealthCheck{HTTP: "/"}, "answer: the answer is no HTTP"},
		{"nothing at all", silent, HealthCheck{HTTP: "/"}, "timeout:"},
		{"TCP", silent, HealthCheck{TCP: true}, well},
		{"refused", gone, HealthCheck{TCP: true}, "connect:"},
		{"refused, HTTP", gone, HealthCheck{HTTP: "/"}, "connect:"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			check := test.check.withDefaults()
			check.Timeout = soon
			if strings.HasPrefix(test.want, "timeout") {
				check.Timeout = 100 * time.Millisecond
			}
			got := well
			if err := check.probe(t.Context(), Member{ID: "b1", Addr: test.addr, Name: "b1.example"}, dialTCP); err != nil {
				failed := (*checkError)(nil)
				if !errors.As(err, &failed) {
					t.Fatalf("%T is no *checkError", err)
				}
				got = failed.reason.String() + ": " + err.Error()
			}
			if !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// listen accepts connections at the address that it returns, and has serve serve them; nil: the address refuses connections.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if serve == nil {
		ln.Close()
		return ln.Addr().String()
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
				serve(conn)
			}()
		}
	}()
	return ln.Addr().String()
}
