package backend

import (
	"math/rand/v2"
	"time"

	"github.com/gobwas/ws"
)

// pingJitter is how much sooner or later than Config.PingEvery a ping may come, as a share of it. Clients that connect together, after
// a restart, are pinged apart from the first time on.
const pingJitter = 0.2

// earliestPing is the least time between two pings.
func earliestPing(every time.Duration) time.Duration {
	return time.Duration((1 - pingJitter) * float64(every))
}

func pingAfter(every time.Duration) time.Duration {
	return earliestPing(every) + time.Duration(2*pingJitter*rand.Float64()*float64(every))
}

var pingFrame = ws.MustCompileFrame(ws.NewPingFrame(nil))

// startPings runs on the loop, as do the calls that it sets off. One timer of the loop's wheel per session goes back and forth between
// ping and hasAnswered: 64 bytes.
func (s *Session) startPings() {
	if every := s.backend.cfg.PingEvery; every > 0 && !s.ended {
		s.beat = s.loop.AfterFunc(pingAfter(every), s.ping)
	}
}

// ping asks the client for a sign of life.
func (s *Session) ping() {
	s.awaited = true
	if !s.isQueueing() { // else the client shows by taking what waits for it; a ping would only wait behind
		s.write(outgoing{frame: pingFrame})
	}
	s.beat = s.loop.AfterFunc(s.backend.cfg.PongTimeout, s.hasAnswered)
}

// hasAnswered closes a session whose client has been silent since the ping, and has taken nothing of what waits for it. Where we do
// not read, since handlers are behind, its silence means nothing.
func (s *Session) hasAnswered() {
	if s.awaited {
		s.flush() // a socket tells of room only once a third of its buffer is free: a slow client would seem to take nothing
	}
	if s.ended {
		return
	}
	if s.awaited && !s.isPaused() {
		s.beginClose(PingTimeout, 0, "")
		return
	}
	s.beat = s.loop.AfterFunc(pingAfter(s.backend.cfg.PingEvery)-s.backend.cfg.PongTimeout, s.ping)
}

func (s *Session) isQueueing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) > 0
}

func (s *Session) isPaused() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.paused
}
