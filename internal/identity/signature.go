package identity

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"strings"
	"time"
)

// ClockSkew is how far the clocks of an edge and a member may be apart.
const ClockSkew = 30 * time.Second

// Why a signature or a ticket is refused.
var (
	ErrMalformed  = errors.New("it cannot be read")
	ErrUnknownKey = errors.New("it was made with a secret that is not known here")
	ErrForged     = errors.New("it does not fit")
	ErrClock      = errors.New("it is more than 30 s off this clock")
	ErrReplayed   = errors.New("it has been used before")

	// Of tickets only.
	ErrExpired      = errors.New("it has expired")
	ErrOtherBackend = errors.New("it is for another backend")
	ErrOtherTarget  = errors.New("it is for another URL")
)

// Claims are what an edge vouches for in a request: the values of the fields that say it, as they are sent.
type Claims struct {
	Service   string // whose route the request took
	Member    string // that is asked; a signature is for no other
	RequestID string // X-Request-Id
	User      string // X-Selvedge-User; "": there is none
	Expires   string // X-Selvedge-Expires; "": there is none
}

// mac is over these fields. The time is there as it is written.
func (c *Claims) fields(at string) [7]string {
	return [...]string{"request", c.Service, c.Member, at, c.RequestID, c.User, c.Expires}
}

// A signature reads v1.KEY.TIME.MAC: the key's id in hex, Unix milliseconds, and the MAC in base64url without padding.
const signatureVersion = "v1"

// Sign returns the value of X-Selvedge-Signature for c at now.
func (s *Secrets) Sign(c *Claims, now time.Time) string {
	key := s.first()
	at := strconv.FormatInt(now.UnixMilli(), 10)
	var room [32]byte
	fields := c.fields(at)
	sum := key.sign.sum(room[:0], fields[:]...)

	text := make([]byte, 0, 80)
	text = append(text, signatureVersion+"."...)
	text = hex.AppendEncode(text, key.id[:])
	text = append(append(append(text, '.'), at...), '.')
	return string(base64.RawURLEncoding.AppendEncode(text, sum))
}

// signature is one that has been read.
type signature struct {
	key keyID
	at  string
	sum [32]byte
}

func parseSignature(text string) (sig signature, ok bool) {
	version, rest, _ := strings.Cut(text, ".")
	key, rest, _ := strings.Cut(rest, ".")
	at, sum, _ := strings.Cut(rest, ".")
	if version != signatureVersion || len(key) != hex.EncodedLen(len(sig.key)) || len(sum) != base64.RawURLEncoding.EncodedLen(len(sig.sum)) {
		return signature{}, false
	}
	if _, err := hex.Decode(sig.key[:], []byte(key)); err != nil || key != sig.key.String() {
		return signature{}, false
	}
	if _, err := base64.RawURLEncoding.Strict().Decode(sig.sum[:], []byte(sum)); err != nil || strings.ContainsAny(sum, "\r\n") {
		return signature{}, false
	}
	if ms, err := strconv.ParseInt(at, 10, 64); err != nil || ms < 0 || strconv.FormatInt(ms, 10) != at {
		return signature{}, false
	}
	sig.at = at
	return sig, true
}

func (sig *signature) time() time.Time {
	ms, _ := strconv.ParseInt(sig.at, 10, 64) // parsed before
	return time.UnixMilli(ms)
}

// Guard is a member's: it takes each signature, and each ticket, once. Safe for concurrent use.
type Guard struct {
	secrets         *Secrets
	service, member string
	signatures      *seen
	tickets         *seen
}

// NewGuard returns the guard of a member of service.
func NewGuard(secrets *Secrets, service, member string) *Guard {
	return &Guard{secrets, service, member, newSeen(), newSeen()}
}

// Signature returns nil where text is an edge's signature, not used before, of a request with these claims to this member; Service and
// Member need not be set. Else the error is ErrMalformed, ErrUnknownKey, ErrForged, ErrClock or ErrReplayed.
func (g *Guard) Signature(text string, c Claims, now time.Time) error {
	sig, ok := parseSignature(text)
	if !ok {
		return ErrMalformed
	}
	key := g.secrets.named(sig.key)
	if key == nil {
		return ErrUnknownKey
	}
	c.Service, c.Member = g.service, g.member
	fields := c.fields(sig.at)
	if !key.sign.fits(sig.sum[:], fields[:]...) {
		return ErrForged
	}
	at := sig.time()
	if at.Before(now.Add(-ClockSkew)) || at.After(now.Add(ClockSkew)) {
		return ErrClock
	}
	// Two requests may have one id, where a proxy in front chooses it; their signatures differ by the time.
	if !g.signatures.first([16]byte(sig.sum[:]), at, now) {
		return ErrReplayed
	}
	return nil
}
