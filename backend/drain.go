package backend

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/discovery"
)

// ErrDrainTimeout is returned by Run when sessions were left at the end of Config.DrainTimeout; they were closed with 1001.
var ErrDrainTimeout = errors.New("drain timed out with sessions left")

const (
	drainSeen   = 3 * time.Second // for a drain to show in this member's own view
	drainWithin = 0.5             // of DrainTimeout, all close frames are sent; the rest is for clients to answer them

	handlerTimeout = 2 * time.Second // for the service's handlers to return once all sessions are closed
)

// drain leaves the ring and sends the sessions away. It returns nil when none is left.
func (b *Backend) drain() error {
	b.draining.Store(true)
	ctx, cancel := context.WithTimeout(context.Background(), b.cfg.DrainTimeout)
	defer cancel()
	b.log.Info("draining", zap.Int("sessions", b.table.len()), zap.Duration("at_most", b.cfg.DrainTimeout))
	b.home.drain()
	b.awaitLeft(ctx)

	rate := b.cfg.Move.drainRate(b.table.len(), b.cfg.DrainTimeout)
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	var allowance float64
	for b.table.len() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.log.Warn("drain timed out", zap.Int("sessions", b.table.len()))
			return ErrDrainTimeout
		}
		allowance += rate * moveTick.Seconds()
		for _, s := range b.table.all() {
			if allowance < 1 {
				break
			}
			if s.beginClose(Restart, 0, "") {
				allowance--
			}
		}
	}
	return nil
}

// drainAndStay is the drain that an operator asks for: the member leaves as it does at the end of ctx, but its process goes on, so that whoever
// supervises it does not start it again at once. It stays registered as draining, and its RPC answers.
func (b *Backend) drainAndStay(ctx, serving context.Context) error {
	err := b.drain()
	if ctx.Err() != nil {
		return err // it was told to end meanwhile
	}
	for _, s := range b.table.all() {
		s.beginClose(Stopped, 0, "")
	}
	b.log.Info("drained; this process holds nothing any more and can be stopped, or restarted to come back")
	select {
	case <-ctx.Done():
	case err := <-b.failed:
		return err
	case <-serving.Done():
	}
	return nil
}

// awaitLeft waits until this member's own view has it out of the ring: clients that are sent away should not be sent back. Where
// nothing can be announced there is nothing to wait for.
func (b *Backend) awaitLeft(ctx context.Context) {
	if _, ok := b.source.(discovery.Announcer); !ok {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, drainSeen)
	defer cancel()
	left := make(chan struct{}, 1)
	look := func(_, now *discovery.Snapshot) {
		if m, known := now.Member(b.cfg.ID); !known || !m.InRing() {
			select {
			case left <- struct{}{}:
			default:
			}
		}
	}
	stop := b.view.Subscribe(look)
	defer stop()
	look(nil, b.view.Snapshot())
	select {
	case <-left:
	case <-ctx.Done():
	}
}

// closeAll closes every session and waits until the last one's handlers have returned, which is when empty is closed. A close
// handshake takes at most closeTimeout; a handler that takes longer is left behind, and named in the error.
func (b *Backend) closeAll(reason CloseReason, empty <-chan struct{}) error {
	limit := time.NewTimer(closeTimeout + handlerTimeout)
	defer limit.Stop()
	tick := time.NewTicker(moveTick)
	defer tick.Stop()
	for {
		for _, s := range b.table.all() { // again and again: one that came through the door at the last moment may register late
			s.beginClose(reason, 0, "")
		}
		select {
		case <-empty:
			return nil
		case <-tick.C:
		case <-limit.C:
			return fmt.Errorf("the handlers of %d sessions have not returned; they are left behind", b.door.count())
		}
	}
}
