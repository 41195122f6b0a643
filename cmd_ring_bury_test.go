package main

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/testkit"
)

// An operator who knows that a host is gone makes pushes certain again.
func TestRingBury(t *testing.T) {
	hung, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	registry := discovery.NewMemory()
	b, err := backend.New(backend.Config{
		ID: "b1", Listen: "127.0.0.1:0", RPC: "127.0.0.1:0", Membership: backend.Membership{Memory: registry},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	defer func() { stop(); <-ended }()
	<-b.Ready()
	via := b.RPCAddr().String()
	push := func(text string) int {
		_, _, code := execute(t, "push", "--to", "alice", "--text", text, "--timeout", "500ms", "--via", via, "--log-level", "error")
		return code
	}
	gone := hung.Addr().String()
	registry.Put("default", discovery.Member{ID: "b9", Incarnation: 1, Addr: gone, RPCAddr: gone, Weight: 1, Health: discovery.Critical})
	testkit.Eventually(t, 10*time.Second, func() bool { return push("before") == exitFailed }, "a push to be unsettled")

	if _, stderr, code := execute(t, "ring", "bury", "b8", "--via", via); code != exitFailed {
		t.Errorf("bury a stranger: exit code %d, %q", code, stderr)
	}
	if stdout, stderr, code := execute(t, "ring", "bury", "b9", "--via", via); code != 0 || stdout != "buried b9\n" {
		t.Errorf("bury: exit code %d, %q, %q", code, stdout, stderr)
	}
	if code := push("after"); code != exitNobody {
		t.Errorf("push after it: exit code %d, want %d: offline for certain", code, exitNobody)
	}
}
