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
// the client's connection belongs to net/http; from there on it belongs to the relay, and this goroutine ends. What begins with an attempt
// was begun by an [opening] on the reactor, which did the first part of the same with the same functions.
func (e *Edge) upgrade(w http.ResponseWriter, r *http.Request, x *exchange, a *attempt) {
	out := &statusWriter{ResponseWriter: w, code: statusClientGone}
	joined := false
	defer func() {
		e.metrics.upgraded(x.service(), out.code, x.started)
		if !joined {
			e.access.ended(x, out.code, 0, out.bytes)
		}
	}()
	refuse := func(no *refusal) { e.refuse(out, x, no) }

	// Is it one, is there room, where to, and who is it?
	if a == nil {
		var no *refusal
		if a, no = e.admit(r, x); no != nil {
			refuse(no)
			return
		}
	}
	defer func() {
		if !joined {
			e.sessions.give(a.claim)
		}
	}()

	ctx, svc := r.Context(), a.service()
	if !pause(ctx, a.wait) {
		refuse(refuseGone)
		return
	}

	// Ask the owner, then its successors, until one answers for good.
	var b *backend
	var answer *http.Response
	for b == nil {
		if !a.trying && !a.next() {
			refuse(refuseUnreachable)
			return
		}
		if a.conn == nil {
			conn, err := svc.dial(ctx, a.member.Addr, endsOf(ctx, x))
			if ctx.Err() != nil {
				if err == nil {
					_ = conn.Close()
				}
				refuse(refuseGone)
				return
			}
			if dial := (*dialError)(nil); errors.As(err, &dial) && dial.ours() {
				e.log.Warn("no connection left to reach a member with", zap.String("member", a.member.ID), zap.Error(err))
				refuse(refuseExhausted)
				return
			}
			if err != nil {
				a.failed(err)
				a.over()
				continue
			}
			a.conn = conn
			a.prepare(make([]byte, 0, 1024))
			a.connected()
		}
		b = newBackend(a.conn)
		var err error
		answer, err = b.ask(ctx, r, a.unsent, a.until) //nolint:bodyclose // b.close ends the connection
		if err == nil {
			a.answered()
			if !refusesToHold(answer) {
				break
			}
		}
		b.close()
		b, answer = nil, nil
		switch {
		case err == nil, errors.Is(err, errNoAnswer): // it takes no session now, or it died: its successor is next
			a.over()
		case errors.Is(err, errClientGone):
			refuse(refuseGone)
			return
		case errors.Is(err, errTooLate):
			a.failed(err)
			refuse(refuseTooLate)
			return
		default:
			svc.log.Warn("a member's answer to an upgrade cannot be read", zap.String("member", a.member.ID), zap.Error(err))
			refuse(refuseAnswer("the backend's answer is no HTTP"))
			return
		}
	}
	defer func() {
		if !joined {
			b.close()
		}
	}()

	// Is it the 101? A refusal is the backend's to give; what is neither is nonsense.
	if answer.StatusCode >= 300 && checkFields(answer.Header) == "" {
		b.passOn(out, answer, &x.route.response, svc.cfg.ResponseTimeout)
		return
	}
	problem := "the backend answered an upgrade with neither a 101 nor a refusal"
	if answer.StatusCode == http.StatusSwitchingProtocols {
		problem = checkSwitch(answer, a.accept)
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
	if err := switchProtocols(client.Conn, server.Conn, switchHead(nil, answer, x), svc.cfg.ResponseTimeout); err != nil {
		_ = conn.Close()
		x.refused = clientGone
		return
	}
	b.release()
	joined = true
	out.code = http.StatusSwitchingProtocols
	relay := e.relay.Load()
	err = e.sessions.join(e, a, func(ended func(tunnel.Summary)) (*tunnel.Tunnel, error) {
		return relay.Join(client, server, e.access.session(x, ended))
	})
	if err != nil {
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
	if cc := clientOf(c); cc != nil {
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
