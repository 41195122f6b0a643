package sender_test

import (
	"context"
	"testing"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/discovery"
)

// A sender that is given a view decides by it, and leaves it to whoever runs it.
func TestSharedView(t *testing.T) {
	registry := discovery.NewMemory()
	registry.Put("default", discovery.Member{ID: "b1", Addr: "127.0.0.1:1", RPCAddr: "127.0.0.1:2", Weight: 1})
	view := discovery.NewView("default", registry, nil)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- view.Run(ctx) }()
	s, err := sender.New(sender.Config{View: view})
	if err != nil {
		t.Fatal(err)
	}
	ring, err := s.Ring(ctx)
	if err != nil || ring.Digest != view.Snapshot().Ring.Digest() || len(ring.Members) != 1 {
		t.Errorf("ring %v, %v; want that of the view", ring, err)
	}
	s.Close()
	s.Close()
	registry.Put("default", discovery.Member{ID: "b2", Addr: "127.0.0.1:3", Weight: 1})
	select {
	case err := <-ended:
		t.Errorf("closing the sender ended the view: %v", err)
	default:
	}
	stop()
	<-ended
	if _, err := sender.New(sender.Config{View: view, Via: "http://127.0.0.1:1"}); err == nil {
		t.Error("View and Via together were taken")
	}
}
