package rpc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/selvedge/selvedge/internal/rpc"
)

func TestUpgrade(t *testing.T) {
	addr := start(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer s3cret" || !rpc.IsUpgrade(r, "words") || r.URL.Path != "/talk" {
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		conn, in, err := rpc.Accept(w, "words")
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "early") // may come with the 101
		_, _ = io.Copy(conn, in)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	conn, in, err := rpc.Upgrade(ctx, addr, "/talk", "words", "s3cret")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, " bird"); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("early bird"))
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "early bird" {
		t.Errorf("%q, %v", got, err)
	}
	for _, wrong := range [][3]string{{"/talk", "words", "guess"}, {"/talk", "signs", "s3cret"}, {"/", "words", "s3cret"}} {
		if _, _, err := rpc.Upgrade(ctx, addr, wrong[0], wrong[1], wrong[2]); !errors.Is(err, rpc.ErrNotUpgraded) {
			t.Errorf("%v: %v; want that it is not upgraded", wrong, err)
		}
	}
}

// A server that takes the connection and says nothing holds nobody up beyond his context.
func TestUpgradeEndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, _, err := rpc.Upgrade(ctx, ln.Addr().String(), "/", "words", ""); err == nil || time.Since(begin) > 5*time.Second {
		t.Errorf("%v after %v", err, time.Since(begin))
	}
}
