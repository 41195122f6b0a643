package tunnel

import "fmt"

// Reason is why a tunnel ended.
type Reason uint8

const (
	// Failed: a system call failed in a way that says nothing about either peer; Summary.Err has it.
	Failed Reason = iota
	// ClientClosed: both sides ended their streams, the client first.
	ClientClosed
	// BackendClosed: both sides ended their streams, the backend first.
	BackendClosed
	// ClientReset: the client's connection was reset; the reset was passed on.
	ClientReset
	// BackendReset: the backend's connection was reset; the reset was passed on.
	BackendReset
	// ClientLost: the client's host stopped answering (keepalive, TCP_USER_TIMEOUT or an unreachable network).
	ClientLost
	// BackendLost: the backend's host stopped answering.
	BackendLost
	// IdleTimeout: no byte went either way for Config.IdleTimeout.
	IdleTimeout
	// Drained: the process is draining, and the session was asked to go.
	Drained
	// Moved: the session's user belongs to another backend now.
	Moved
	// Expired: the credential that opened the session has run out.
	Expired
	// Shutdown: Relay.Close.
	Shutdown

	numReasons
)

var reasonNames = [numReasons]string{
	Failed: "failed", ClientClosed: "client_closed", BackendClosed: "backend_closed", ClientReset: "client_reset",
	BackendReset: "backend_reset", ClientLost: "client_lost", BackendLost: "backend_lost", IdleTimeout: "idle_timeout",
	Drained: "drained", Moved: "moved", Expired: "expired", Shutdown: "shutdown",
}

// String returns the reason as a metric label.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// Reasons returns all reasons, so that every label can be there at zero from the start.
func Reasons() []Reason {
	all := make([]Reason, numReasons)
	for i := range all {
		all[i] = Reason(i)
	}
	return all
}
