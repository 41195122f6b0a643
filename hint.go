package main

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// hinted says, behind an error of a call, what its caller can do about it.
func (r *reach) hinted(err error) error {
	if err == nil {
		return nil
	}
	hint := r.hint(err)
	if hint == "" {
		return err
	}
	return fmt.Errorf("%w\n  %s", err, hint)
}

func (r *reach) hint(err error) string {
	var call *connect.Error
	if !errors.As(err, &call) {
		return ""
	}
	through := r.via != ""
	switch reason := pushv1.DetailOf(err).GetReason(); {
	case call.Code() == connect.CodeUnauthenticated:
		return "give the token of that process (a backend's rpc.token_file, an edge's admin.token_file): --token-file FILE, or SELVEDGE_TOKEN"
	case call.Code() == connect.CodeNotFound && through:
		return "name the service: --service NAME"
	case reason == pushv1.Reason_NO_MEMBERS && through:
		return "start a backend of the service; selvedge doctor says what the registry knows"
	case reason == pushv1.Reason_NO_MEMBERS:
		return "see whether there is a member of service " + r.service + ", and where the registry is: selvedge doctor --service " + r.service
	case reason == pushv1.Reason_UNSETTLED:
		return "push again with the same --message-id, which no session gets twice; selvedge ring show says which member does not answer"
	case through && (call.Code() == connect.CodeUnimplemented || call.Code() == connect.CodeUnknown || call.Code() == connect.CodeUnavailable):
		return "see what runs at " + r.via + ": --via takes a backend's RPC port (9100) or an edge's admin port (8081), not the port that clients connect to"
	case call.Code() == connect.CodeDeadlineExceeded || errors.Is(err, context.DeadlineExceeded):
		return "try longer (--timeout), and see who does not answer: selvedge doctor"
	}
	return ""
}
