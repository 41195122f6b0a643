//go:build unix

package tunnel

import (
	"errors"
	"fmt"
	"time"

	"github.com/selvedge/selvedge/internal/reactor"
)

const (
	defaultKeepAlive   = time.Minute
	defaultUserTimeout = 2 * time.Minute
	// lingerTime is how long a cut waits for the peers to take what is buffered and to end their streams.
	lingerTime = 2 * time.Second
)

// Config says how a relay treats its tunnels. Only Reactor must be set.
type Config struct {
	// Reactor runs the tunnels. Close the relay before it.
	Reactor *reactor.Reactor

	// Engine is how bytes are moved between descriptors. The default is Auto.
	Engine Engine

	// IdleTimeout cuts a tunnel when no byte has gone either way for this long; it may take an eighth longer. 0 means
	// never: keepalive finds dead peers, and an idle session is what this is made for.
	IdleTimeout time.Duration

	// KeepAlive is the quiet time after which TCP asks whether the peer is still there, and goes on to ask a third of this apart, until
	// UserTimeout is over; without that, three times. 0 means 1 minute, a negative value leaves the sockets' settings alone.
	KeepAlive time.Duration

	// UserTimeout (TCP_USER_TIMEOUT, Linux) is how long sent bytes may go unacknowledged, or the peer's window may stay
	// shut, until the connection is given up. It is also how long a reader may stall, so keep it above what slow clients
	// need. 0 means 2 minutes, a negative value leaves the sockets' settings alone.
	UserTimeout time.Duration
}

// withDefaults validates and fills in.
func (c Config) withDefaults() (Config, error) {
	if c.Reactor == nil {
		return c, errors.New("tunnel: Config.Reactor is nil")
	}
	if c.Engine > Splice {
		return c, fmt.Errorf("tunnel: Config.Engine: unknown %v", c.Engine)
	}
	if c.IdleTimeout < 0 {
		return c, fmt.Errorf("tunnel: Config.IdleTimeout is negative: %v", c.IdleTimeout)
	}
	if c.KeepAlive == 0 {
		c.KeepAlive = defaultKeepAlive
	}
	if c.UserTimeout == 0 {
		c.UserTimeout = defaultUserTimeout
	}
	return c, nil
}
