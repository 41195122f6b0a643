package edge

import (
	"bufio"
	"bytes"
	"errors"
	"net"
	"net/http"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/tunnel"
)

// upgrade is how a session begins, from top to bottom. Up to the backend's 101 every failure is an ordinary HTTP answer, and
// the client's connection belongs to net/http; from there on it belongs to the relay, and this goroutine ends.
func (e *Edge) upgrade(w http.ResponseWriter, r *http.Request, x *exchange) {
	code := statusClientGone
	defer func() { e.metrics.upgraded(x.service(), code, x.started) }()
	refuse := func(no *refusal) { code = no.status; e.refuse(w, x, no) }

	// Is it one, and is there room?
	accept, no := checkUpgrade(r)
	if no == nil {
		no = e.sessions.take()
	}
	if no != nil {
		refuse(no)
		return
	}
	joined := false
	defer func() {
		if !joined {
			e.sessions.give()
		}
	}()

	// Where to, and who is it?
	if no := x.resolve(r); no != nil {
		refuse(no)
		return
	}

	// Ask the owner, then its successors, until one answers for good.
	ctx, svc := r.Context(), x.route.service
	snap := svc.view.Snapshot()
	if snap.Ring.Len() == 0 {
		refuse(refuseNoMember)
		return
	}
	header := e.backendHeader(r, x)
	var b *backend
	var at candidate
	var answer *http.Response
	for member := range svc.walk(snap, x.user) {
		began := time.Now()
		conn, err := svc.dial(ctx, member.Addr)
		if ctx.Err() != nil {
			if err == nil {
				_ = conn.Close()
			}
			refuse(refuseGone)
			return
		}
		if dial := (*dialError)(nil); errors.As(err, &dial) && dial.ours() {
			e.log.Warn("no connection left to reach a member with", zap.String("member", member.ID), zap.Error(err))
			refuse(refuseExhausted)
			return
		}
		if err != nil {
			svc.outliers.failed(member.Member, began, err)
			continue
		}
		b = newBackend(conn)
		head := upgradeHead(r, withPassedOver(header, x, member))
		answer, err = b.ask(ctx, r, head, svc.cfg.ResponseTimeout) //nolint:bodyclose // b.close ends the connection
		if err == nil {
			svc.outliers.answered(member.Member, began)
			if !refusesToHold(answer) {
				at = member
				break
			}
		}
		b.close()
		b, answer = nil, nil
		switch {
		case err == nil, errors.Is(err, errNoAnswer): // it takes no session now, or it died: its successor is next
		case errors.Is(err, errClientGone):
			refuse(refuseGone)
			return
		case errors.Is(err, errTooLate):
			svc.outliers.failed(member.Member, began, err)
			refuse(refuseTooLate)
			return
		default:
			svc.log.Warn("a member's answer to an upgrade cannot be read", zap.String("member", member.ID), zap.Error(err))
			refuse(refuseAnswer("the backend's answer is no HTTP"))
			return
		}
	}
	if b == nil {
		refuse(refuseUnreachable)
		return
	}
	defer func() {
		if !joined {
			b.close()
		}
	}()

	// Is it the 101? A refusal is the backend's to give; what is neither is nonsense.
	if answer.StatusCode >= 300 && checkFields(answer.Header) == "" {
		code = answer.StatusCode
		b.passOn(w, answer, svc.cfg.ResponseTimeout)
		return
	}
	problem := "the backend answered an upgrade with neither a 101 nor a refusal"
	if answer.StatusCode == http.StatusSwitchingProtocols {
		problem = checkSwitch(answer, accept)
	}
	if problem != "" {
		svc.log.Warn(problem, zap.Int("status", answer.StatusCode), zap.String("request_id", x.id))
		refuse(refuseAnswer(problem))
		return
	}

	// Yes: the connection leaves HTTP. No answer but the 101 can be given any more.
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		refuse(refuseRequest("this connection cannot be upgraded")) // HTTP/2 and the like, which wantsWebSocket does not let here
		return
	}
	client := tunnel.End{Conn: plainConn(conn), Early: early(buffered.Reader)}
	server := tunnel.End{Conn: b.conn, Early: early(b.br)}
	if err := switchProtocols(client.Conn, server.Conn, switchHead(answer), svc.cfg.ResponseTimeout); err != nil {
		_ = conn.Close()
		return
	}
	b.release()
	joined = true
	code = http.StatusSwitchingProtocols
	if err := e.sessions.join(e.relay.Load(), e, svc, x.user, at, client, server); err != nil {
		e.log.Error("two connections cannot be joined", zap.String("request_id", x.id), zap.Error(err))
	}
}

// refusesToHold tells whether answer is a member of ours that takes no session now: it joins, drains, has stopped, or its peers have not
// agreed. Any other 503 is the backend's own answer to this user.
func refusesToHold(answer *http.Response) bool {
	return answer.StatusCode == http.StatusServiceUnavailable && answer.Header.Get("X-Selvedge-Refused") != ""
}

// switchProtocols sends the 101 and takes all deadlines off.
func switchProtocols(client, server net.Conn, head []byte, timeout time.Duration) error {
	if err := client.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := client.Write(head); err != nil {
		return err
	}
	if err := client.SetDeadline(time.Time{}); err != nil {
		return err
	}
	return server.SetDeadline(time.Time{})
}

// plainConn is the connection that a listener of ours has wrapped.
func plainConn(c net.Conn) net.Conn {
	if cc, ok := c.(*clientConn); ok {
		return cc.Conn
	}
	return c
}

// early returns what br has read ahead, in a slice of its own; nil: nothing.
func early(br *bufio.Reader) []byte {
	n := br.Buffered()
	if n == 0 {
		return nil
	}
	ahead, _ := br.Peek(n) // never fails for what is buffered
	return bytes.Clone(ahead)
}
