package backend

import (
	"context"
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/identity"
)

// What else an edge says of a request; see UserHeader.
const (
	SignatureHeader = "X-Selvedge-Signature" // that it is an edge that says it
	ExpiresHeader   = "X-Selvedge-Expires"   // when the user's token ends, RFC 3339: the session ends then
)

// trust knows whose word on a request's user counts: that of edges which sign, or which are in networks where nobody else is; and that of
// a ticket.
type trust struct {
	guard   *identity.Guard // nil without a secret
	secrets *identity.Secrets
	edges   []netip.Prefix
	warned  atomic.Int64 // Unix nanoseconds; when the log was last told of a refusal
}

// loopback is whom a member believes that has been told nothing else: it listens nowhere else, then.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

func newTrust(cfg Config) (*trust, error) {
	t := &trust{edges: cfg.TrustedEdges}
	if cfg.EdgeSecretFile == "" {
		if len(t.edges) == 0 {
			t.edges = loopback
		}
		return t, nil
	}
	var err error
	if t.secrets, err = identity.ReadSecrets(cfg.EdgeSecretFile); err != nil {
		return nil, err
	}
	t.guard = identity.NewGuard(t.secrets, cfg.Service, cfg.ID)
	return t, nil
}

// followSecrets takes over changes of the secrets while the member runs.
func (b *Backend) followSecrets(ctx context.Context) {
	if b.trust.secrets == nil {
		return
	}
	b.trust.secrets.Follow(ctx, func(err error) {
		if err != nil {
			b.log.Error("the secrets that edges sign with cannot be read anew; the old ones stay in force", zap.Error(err))
			return
		}
		b.log.Info("the secrets that edges sign with have changed")
	})
}

// FromEdges lets requests through to next that come from an edge, and so have the user's id in UserHeader where there is a user, and
// requests that claim nothing of the kind, such as health checks. Others get 401. [Config.HTTP] is behind it already; it is for services
// that serve plain HTTP by themselves beside [Backend.Handler].
func (b *Backend) FromEdges(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch again, refusal := b.vouched(r); {
		case refusal == nil:
			r = r.WithContext(context.WithValue(r.Context(), vouchedKey{}, vouchedFor{b, again}))
		case refusal.reason != unsigned || isUpgrade(r) || claimsUser(r):
			b.refuse(w, refusal)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// vouchedFor, in a request's context, says that b has checked who vouches for it: signatures and tickets are good once.
type vouchedFor struct {
	b     *Backend
	again string
}

type vouchedKey struct{}

// vouched tells who r is from, by X-Selvedge-*, if that can be believed. Where it came with a ticket, it is made to look as an edge would
// have it, and again says where its client can have another.
func (b *Backend) vouched(r *http.Request) (again string, refusal *Refusal) {
	if by, ok := r.Context().Value(vouchedKey{}).(vouchedFor); ok && by.b == b {
		return by.again, nil
	}
	refusal = b.edgeVouches(r)
	if refusal != nil && refusal.reason == unsigned && b.trust.guard != nil && isUpgrade(r) {
		if query, ticket, found := identity.CutTicket(r.URL.RawQuery); found {
			return b.redeem(r, query, ticket)
		}
	}
	return "", refusal
}

// edgeVouches tells whether r comes from an edge: a signature, where there is one, decides.
func (b *Backend) edgeVouches(r *http.Request) *Refusal {
	t := b.trust
	if t.guard != nil && len(r.Header[SignatureHeader]) > 0 {
		return b.checkSignature(r)
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		addr := peer.Addr().Unmap().WithZone("")
		for _, network := range t.edges {
			if network.Contains(addr) {
				return nil
			}
		}
	}
	text := "this member takes requests of edges that it trusts; connect through one"
	if t.guard != nil {
		text = "this member takes requests that an edge has signed; connect through one, or with a ticket of one"
	}
	return distrust(unsigned, http.StatusUnauthorized, text)
}

func (b *Backend) checkSignature(r *http.Request) *Refusal {
	var claims identity.Claims
	var text string
	for _, field := range []struct {
		name string
		to   *string
	}{{SignatureHeader, &text}, {UserHeader, &claims.User}, {ExpiresHeader, &claims.Expires}, {"X-Request-Id", &claims.RequestID}} {
		values := r.Header[field.name]
		if len(values) > 1 || len(values) == 1 && values[0] == "" { // empty is signed as absent, and is not taken for that
			return distrust("signature_malformed", http.StatusUnauthorized, field.name+": want one value")
		}
		if len(values) == 1 {
			*field.to = values[0]
		}
	}
	err := b.trust.guard.Signature(text, claims, time.Now())
	if err == nil {
		return nil
	}
	b.warn("an edge's signature is refused; compare its service, the secrets of both, the member's id and the clocks", zap.Error(err),
		zap.String("peer", r.RemoteAddr), zap.String("service", b.cfg.Service))
	return distrust("signature_"+refusedFor(err).word, http.StatusUnauthorized, "the edge's signature: "+err.Error())
}

// unsigned is the reason that is given to those who show nothing.
const unsigned = "unsigned"

// whyRefused is a word for metrics and clients, and a status for tickets.
type whyRefused struct {
	err    error
	word   string
	status int
}

var whysRefused = []whyRefused{
	{identity.ErrMalformed, "malformed", http.StatusUnauthorized},
	{identity.ErrUnknownKey, "unknown_key", http.StatusUnauthorized},
	{identity.ErrForged, "forged", http.StatusUnauthorized},
	{identity.ErrClock, "clock", http.StatusUnauthorized},
	{identity.ErrReplayed, "replayed", http.StatusUnauthorized},
	// Of tickets only.
	{identity.ErrExpired, "expired", http.StatusUnauthorized},
	{identity.ErrOtherTarget, "other_url", http.StatusForbidden},
	{errOtherUser, "other_user", http.StatusForbidden},
	{identity.ErrOtherBackend, "other_backend", http.StatusMisdirectedRequest},
	{errLeaving, "leaving", http.StatusMisdirectedRequest},
}

var (
	errOtherUser = errors.New("it is for another user")
	errLeaving   = errors.New("it is good, but this member takes no session now")
)

func refusedFor(err error) whyRefused {
	for _, why := range whysRefused {
		if errors.Is(err, why.err) {
			return why
		}
	}
	return whyRefused{err, "malformed", http.StatusUnauthorized}
}

// distrusts lists the reasons, which are labels of a metric.
func distrusts() []string {
	reasons := []string{unsigned, tokenOver}
	for i, why := range whysRefused {
		if i < 5 {
			reasons = append(reasons, "signature_"+why.word)
		}
		reasons = append(reasons, "ticket_"+why.word)
	}
	return reasons
}

// distrust is a refusal for who somebody is not, or cannot show to be.
func distrust(reason string, status int, text string) *Refusal {
	return &Refusal{Status: status, Text: text, reason: reason}
}

// claimsUser tells whether r says something that only an edge may say, in any spelling that some framework takes for it.
func claimsUser(r *http.Request) bool {
	for name := range r.Header {
		if isOurs(name) {
			return true
		}
	}
	return false
}

func isOurs(name string) bool {
	const prefix = "x-selvedge-"
	return len(name) >= len(prefix) && strings.EqualFold(strings.ReplaceAll(name[:len(prefix)], "_", "-"), prefix)
}

// warn tells the log, at most every ten seconds: whoever can connect could fill it.
func (b *Backend) warn(text string, fields ...zap.Field) {
	now := time.Now().UnixNano()
	if last := b.trust.warned.Load(); now-last > int64(10*time.Second) && b.trust.warned.CompareAndSwap(last, now) {
		b.log.Warn(text, fields...)
	}
}
