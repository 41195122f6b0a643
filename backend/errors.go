package backend

import (
	"context"
	"errors"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

var (
	// ErrSessionClosed is returned by Send once a session is closing: the message did not go out.
	ErrSessionClosed = errors.New("session is closed")
	// ErrUnsettled is returned where somebody who could hold a session of the user did not answer in time, or a session has not
	// taken its bytes: push again with the same message id, which no session gets twice.
	ErrUnsettled = errors.New("unsettled")
	// ErrMessageReused is returned where the message id came before with another payload: choose ids that are unique.
	ErrMessageReused = errors.New("came before with another payload")
	// ErrOverloaded is returned where a member remembers as many recent messages as it can, or where a slow session's full queue has
	// dropped the message for newer ones: push again a little later, or not at all.
	ErrOverloaded = errors.New("too many pushes")
	// ErrOvertaken is returned where a later push of the same sender to the same user came first: this one is out of date.
	ErrOvertaken = errors.New("overtaken by a later push of the same sender")
	// ErrNotJoined is returned by a member that is joining, or that must join anew: ask another member.
	ErrNotJoined = errors.New("this member has not joined the others yet")
	// ErrSuperseded is returned by Run when another process has taken this member's id: give each its own.
	ErrSuperseded = errors.New("another process has taken this member's id")
)

// reached carries how many sessions took a push that did not complete.
type reached struct {
	error
	sessions int
}

func (r *reached) Unwrap() error { return r.error }

// reachedBefore is how many sessions of other members err knows of.
func reachedBefore(err error) int {
	var some *reached
	if errors.As(err, &some) {
		return some.sessions
	}
	return 0
}

// alsoReached adds n sessions of this member, or that answered for themselves, to those that err knows of.
func alsoReached(err error, n int) error { return &reached{err, reachedBefore(err) + n} }

// foreignOwner is why a push found nobody: the user's owner does not use this package, and nobody knows what it holds.
type foreignOwner struct{ member string }

func (f *foreignOwner) Error() string {
	return "the user belongs to member " + f.member + ", which takes no pushes: it has no RPC listener"
}

func isForeign(err error) bool {
	var foreign *foreignOwner
	return errors.As(err, &foreign)
}

// rpcError gives err its Connect code and typed detail.
func (b *Backend) rpcError(err error) error {
	if err == nil {
		return nil
	}
	// Ours come first: they may wrap what a peer's client said.
	var known *connect.Error
	code, reason := connect.CodeInternal, pushv1.Reason_REASON_UNSPECIFIED
	switch {
	case errors.Is(err, ErrMessageReused):
		code, reason = connect.CodeAlreadyExists, pushv1.Reason_MESSAGE_REUSED
	case errors.Is(err, ErrOverloaded):
		code, reason = connect.CodeResourceExhausted, pushv1.Reason_OVERLOADED
	case errors.Is(err, ErrOvertaken):
		code, reason = connect.CodeFailedPrecondition, pushv1.Reason_OVERTAKEN
	case errors.Is(err, ErrNotJoined):
		code, reason = connect.CodeUnavailable, pushv1.Reason_NOT_A_MEMBER
	case isForeign(err):
		code = connect.CodeUnimplemented
	case errors.Is(err, ErrUnsettled):
		code, reason = connect.CodeAborted, pushv1.Reason_UNSETTLED
	case errors.As(err, &known):
		return err
	case errors.Is(err, context.DeadlineExceeded):
		code = connect.CodeDeadlineExceeded
	case errors.Is(err, context.Canceled):
		code = connect.CodeCanceled
	}
	detail := &pushv1.ErrorDetail{Reason: reason, Member: b.cfg.ID, Sessions: uint32(reachedBefore(err))}
	return pushv1.NewError(code, detail, err)
}

// resultError is err as it stands in a list of results.
func (b *Backend) resultError(err error) *pushv1.Error { return pushv1.ResultError(b.rpcError(err)) }
