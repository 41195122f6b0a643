package backend

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/homing"
	"github.com/selvedge/selvedge/internal/identity"
	"github.com/selvedge/selvedge/internal/reactor"
)

// UserHeader carries the user id that the edge found, percent-encoded.
const UserHeader = "X-Selvedge-User"

// Refusal is what OnOpen returns to answer an upgrade with something other than a session. Any other error answers 500, and is
// logged instead of shown.
type Refusal struct {
	Status     int           // 400 to 599, anything else is 500; the edge passes it on
	Text       string        // the body
	RetryAfter time.Duration // in whole seconds, rounded up; 0: no Retry-After header

	// This package's own.
	why    string // the edge tries the user's next member
	reason string // why somebody is not believed; the answer is JSON then, and the refusal is counted
	again  string // the URL where a direct client can have another ticket
}

// RefusedHeader tells the edge that it is the member and not the service that refuses an upgrade, and why: joining, draining,
// unacknowledged, full or stopped. Another member may take the session.
const RefusedHeader = "X-Selvedge-Refused"

func unavailable(why, text string) *Refusal {
	return &Refusal{Status: http.StatusServiceUnavailable, Text: text, RetryAfter: time.Second, why: why}
}

func (r *Refusal) Error() string { return fmt.Sprintf("%d %s", r.Status, r.Text) }

// Handler returns what serves WebSocket upgrades for a service that has a net/http server of its own: each upgrade becomes a
// session while [Backend.Run] runs; before and after, and while it drains, they get 503. Requests that are no upgrade get 426.
func (b *Backend) Handler() http.Handler { return http.HandlerFunc(b.accept) }

// accept is the life of a session until nobody waits for it any more, where net/http has read the request: who, registered, agreed,
// answered 101, attached to its loop. From then on there is no goroutine. [arrival] is the same on a loop.
func (b *Backend) accept(w http.ResponseWriter, r *http.Request) {
	e, refusal := b.enter(r)
	if refusal == nil {
		refusal = b.letIn(r, e)
	}
	if refusal != nil {
		b.refuse(w, misdirected(refusal, e.again))
		return
	}
	s := e.session
	conn, rw, err := b.greet(w, r, s)
	if err != nil { // the upgrader has answered, if there still was somebody to answer to
		if conn != nil {
			_ = conn.Close()
		}
		s.end(ConnectionLost)
		return
	}
	early, err := rw.Peek(rw.Reader.Buffered())
	if err != nil {
		early = nil
	}
	fd, err := reactor.Detach(conn)
	if err != nil {
		_ = conn.Close()
		s.end(ConnectionLost)
		return
	}
	if b.cfg.PingEvery > 0 { // which finds out who is gone; package net has TCP ask every 15 s besides
		_ = reactor.SetOption(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 0)
	}
	b.checkHome(s)
	loop := b.reactor.Loop()
	if !loop.Post(func() {
		reg, err := loop.Register(fd, s)
		if err != nil {
			_ = unix.Close(fd)
			s.end(ConnectionLost)
			return
		}
		s.attach(fd, loop, reg, early, e.end)
	}) {
		_ = unix.Close(fd)
		s.end(ConnectionLost)
	}
}

// entry is a session before its 101.
type entry struct {
	session *Session
	end     time.Time // when it is to be closed; zero: by itself
	again   string    // the URL where a direct client can have another ticket
	opening *homing.Opening
	granted <-chan bool // that it may open; nil: it may not
}

// enter finds out who comes, and registers the session: a push that comes once the client knows that it is connected must find it. Without a
// refusal letIn is due. It does not wait for anybody.
func (b *Backend) enter(r *http.Request) (e entry, refusal *Refusal) {
	if e.again, refusal = b.believe(r); refusal != nil {
		return e, refusal
	}
	if e.session, e.end, refusal = b.newSession(r); refusal != nil {
		return e, refusal
	}
	if refusal := b.admit(); refusal != nil {
		return e, refusal
	}
	e.opening, e.granted = b.home.register(e.session)
	return e, nil
}

// letIn waits until the session is known to whoever would swear otherwise that the user has none here, and asks the service. With a refusal the
// session has ended.
func (b *Backend) letIn(r *http.Request, e entry) *Refusal {
	refusal := b.awaitGranted(r.Context(), e.opening, e.granted)
	if refusal == nil && !b.hasPlace(e.session) {
		refusal = tooManyOfUser()
	}
	if refusal == nil {
		refusal = b.askService(e.session, r)
	}
	if refusal != nil {
		e.session.end(Refused)
	}
	return refusal
}

// checkHome has the mover look after a session that is not at its user's home: the edge could not reach that, or sees another ring.
func (b *Backend) checkHome(s *Session) {
	if b.home.ring().OwnerOfHash(uint64(s.hash)) != b.cfg.ID {
		b.wakeMover()
	}
}

// greet answers 101. With an error it has answered something else, if it could.
func (b *Backend) greet(w http.ResponseWriter, r *http.Request, s *Session) (net.Conn, *bufio.ReadWriter, error) {
	// The spellings that checkHandshake knows and the upgrader does not: several values, on one line or more.
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Connection", "Upgrade")
	upgrader := ws.HTTPUpgrader{Timeout: b.cfg.HandshakeTimeout, Protocol: b.chooseProtocol}
	if b.cfg.Compress {
		deflate := &wsflate.Extension{Parameters: wsflate.DefaultParameters}
		upgrader.Negotiate = agreeWith(s, deflate, deflate.Negotiate)
	}
	conn, rw, _, err := upgrader.Upgrade(r, w)
	return conn, rw, err
}

// awaitGranted waits for the members that must know of a session before it opens.
func (b *Backend) awaitGranted(ctx context.Context, opening *homing.Opening, granted <-chan bool) *Refusal {
	if granted == nil {
		if b.draining.Load() {
			return unavailable("draining", "this member drains")
		}
		return unavailable("joining", "this member has not joined the others yet")
	}
	select {
	case is := <-granted:
		if is {
			return nil
		}
	case <-ctx.Done():
		b.home.cancel(opening)
	}
	return unavailable("unacknowledged", "a member that must know of this session does not answer")
}

// askService has OnOpen decide.
func (b *Backend) askService(s *Session, r *http.Request) *Refusal {
	if b.cfg.OnOpen == nil {
		return nil
	}
	var err error
	if !s.guard("OnOpen", func() { err = b.cfg.OnOpen(s, r) }) {
		return &Refusal{Status: http.StatusInternalServerError, Text: "internal error"}
	}
	var refusal *Refusal
	if err == nil || errors.As(err, &refusal) {
		return refusal
	}
	b.log.Warn("OnOpen failed", zap.Error(err))
	return &Refusal{Status: http.StatusInternalServerError, Text: "internal error"}
}

// believe refuses what is no handshake, and who cannot show who they are. Where a direct client can have another ticket is said in
// any case where it is known.
func (b *Backend) believe(r *http.Request) (again string, refusal *Refusal) {
	if refusal := checkHandshake(r); refusal != nil {
		return "", refusal
	}
	return b.vouched(r)
}

// newSession reads who connects, and when the session is to end, if at all; nothing is registered yet.
func (b *Backend) newSession(r *http.Request) (*Session, time.Time, *Refusal) {
	head := identity.FromHTTP(r)
	user, err := UserOf(r)
	if err != nil {
		return nil, time.Time{}, &Refusal{Status: http.StatusBadRequest, Text: err.Error()}
	}
	end, refusal := endOf(r)
	if refusal != nil {
		return nil, end, refusal
	}
	device, err := b.device.UserID(&head)
	var unclear *identity.Error
	if errors.As(err, &unclear) && unclear.Reason != identity.Missing {
		return nil, end, &Refusal{Status: http.StatusBadRequest, Text: "device: " + unclear.Error()}
	}
	s := &Session{
		id:      b.prefix + strconv.FormatUint(b.lastSession.Add(1), 36),
		user:    user,
		hash:    b.userHash(user),
		device:  device,
		address: clientAddress(r),
		since:   time.Now(),
		backend: b,
		strayed: b.isStrayed(r, user),
		fd:      -1,
	}
	return s, end, nil
}

// PassedOverHeader lists, percent-encoded and by comma, the members that the edge tried in vain before this one.
const PassedOverHeader = "X-Selvedge-Passed-Over"

// isStrayed tells whether the edge has tried the user's home in vain: sent there, the client would come straight back.
func (b *Backend) isStrayed(r *http.Request, user string) bool {
	owner := b.Owner(user)
	for _, one := range strings.Split(r.Header.Get(PassedOverHeader), ",") {
		if id, err := url.PathUnescape(strings.TrimSpace(one)); err == nil && id != "" && id == owner {
			return true
		}
	}
	return false
}

// UserOf returns the id of the user that a request is from, as the edge found it. It can be believed in OnOpen, in [Config.HTTP] and
// behind [Backend.FromEdges].
func UserOf(r *http.Request) (string, error) {
	values := r.Header.Values(UserHeader)
	if len(values) != 1 {
		return "", errors.New("no " + UserHeader + ": connect through an edge, by a route that has a key")
	}
	user, err := url.PathUnescape(values[0])
	if err == nil {
		err = identity.CheckUserID(user)
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w", UserHeader, err)
	}
	return user, nil
}

func (b *Backend) refuse(w http.ResponseWriter, refusal *Refusal) {
	status := refusal.Status
	if status < 400 || status > 599 {
		status = http.StatusInternalServerError
	}
	header := w.Header()
	if refusal.why != "" {
		header.Set(RefusedHeader, refusal.why)
	}
	if refusal.RetryAfter > 0 {
		header.Set("Retry-After", strconv.Itoa(int(math.Ceil(refusal.RetryAfter.Seconds()))))
	}
	header.Set("Connection", "close")
	if status == http.StatusUpgradeRequired {
		header.Add("Connection", "upgrade") // on a line of its own: net/http closes for a line that says close and nothing else
		header.Set("Upgrade", "websocket")
		header.Set("Sec-WebSocket-Version", "13")
	}
	if refusal.reason == "" {
		http.Error(w, refusal.Text, status)
		return
	}
	b.metrics.distrusts.WithLabelValues(refusal.reason).Inc()
	switch status {
	case http.StatusUnauthorized:
		header.Set("WWW-Authenticate", "Selvedge")
	case http.StatusMisdirectedRequest:
		header.Set("Location", refusal.again)
	}
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Error   string `json:"error"`
		Reason  string `json:"reason"`
		Resolve string `json:"resolve,omitempty"`
	}{refusal.Text, refusal.reason, refusal.again}) // the client's loss if it is gone
}

// clientAddress is the first address of X-Forwarded-For, which the edge vouches for, else the peer's.
func clientAddress(r *http.Request) string {
	if first, _, _ := strings.Cut(r.Header.Get("X-Forwarded-For"), ","); first != "" {
		return strings.TrimSpace(first)
	}
	head := identity.FromHTTP(r)
	return head.Client.String()
}
