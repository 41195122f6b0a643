package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"
)

// TicketLife is how long a ticket can be used.
const TicketLife = 30 * time.Second

// TicketParameter is the query parameter that a ticket travels in. It is always the last.
const TicketParameter = "selvedge_ticket"

// Ticket lets a user connect to one member, once, without an edge between them.
type Ticket struct {
	User       string
	Backend    string    // the member's id
	Target     string    // path and query of the URL that it is for, as written, without the ticket; known to the edge alone
	Expires    time.Time // in milliseconds
	SessionEnd time.Time // in seconds; when the session is to end; zero: by itself
	Origin     string    // where a new one can be had: https://chat.example.com
	PassedOver string    // the user's owner, where the edge could not reach it and names another; "": Backend is the owner
}

// A ticket is, in base64url without padding: a byte 1 for the version, the key's id, the MAC and what it is over, which is numbers in
// big-endian and texts behind their lengths.
const (
	ticketVersion = 1
	ticketHead    = 1 + 4 + sha256.Size
	ticketFixed   = 8 + 16 + 16 + 8 // expires, id, target, session end
	mostTicket    = 4096            // bytes
)

// Mint returns a ticket of service for use in a URL.
func (s *Secrets) Mint(service string, t *Ticket) string {
	key := s.first()
	body := make([]byte, 0, 256)
	body = binary.BigEndian.AppendUint64(body, uint64(t.Expires.UnixMilli()))
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	body = append(body, id[:]...)
	target := hashTarget(t.Target)
	body = append(body, target[:]...)
	end := uint64(0)
	if !t.SessionEnd.IsZero() {
		end = uint64(t.SessionEnd.Unix())
	}
	body = binary.BigEndian.AppendUint64(body, end)
	for _, text := range []string{t.User, t.Backend, t.Origin, t.PassedOver} {
		body = binary.BigEndian.AppendUint16(body, uint16(len(text))) // of ids and of a Host that has been checked
		body = append(body, text...)
	}
	whole := make([]byte, 0, ticketHead+len(body))
	whole = append(whole, ticketVersion)
	whole = append(whole, key.id[:]...)
	whole = key.tickets.sum(whole, "ticket", service, string(body))
	whole = append(whole, body...)
	return base64.RawURLEncoding.EncodeToString(whole)
}

// Ticket returns who may connect with text, a ticket that came with target. The error is ErrMalformed, ErrUnknownKey or ErrForged, and then
// nothing is known; or ErrClock, ErrExpired, ErrOtherBackend, ErrOtherTarget or ErrReplayed, and then it was a ticket of this
// service and says where to get another. Only one that is taken is used up.
func (g *Guard) Ticket(text, target string, now time.Time) (Ticket, error) {
	p, ok := parseTicket(text)
	if !ok {
		return Ticket{}, ErrMalformed
	}
	key := g.secrets.named(p.key)
	if key == nil {
		return Ticket{}, ErrUnknownKey
	}
	if !key.tickets.fits(p.sum[:], "ticket", g.service, p.body) {
		return Ticket{}, ErrForged
	}
	t := p.ticket
	switch {
	case t.Backend != g.member:
		return t, ErrOtherBackend
	case p.target != hashTarget(target):
		return t, ErrOtherTarget
	case !now.Before(t.Expires):
		return t, ErrExpired
	case t.Expires.After(now.Add(TicketLife + ClockSkew)):
		return t, ErrClock
	case !g.tickets.first(p.id, t.Expires, now):
		return t, ErrReplayed
	}
	t.Target = target
	return t, nil
}

// parsedTicket is one that has been read; nobody has vouched for it yet.
type parsedTicket struct {
	key    keyID
	sum    [sha256.Size]byte
	body   string
	id     [16]byte
	target [16]byte
	ticket Ticket
}

func parseTicket(text string) (p parsedTicket, ok bool) {
	if len(text) > base64.RawURLEncoding.EncodedLen(mostTicket) || strings.ContainsAny(text, "\r\n") {
		return p, false
	}
	whole, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(whole) < ticketHead+ticketFixed || whole[0] != ticketVersion {
		return p, false
	}
	copy(p.key[:], whole[1:])
	copy(p.sum[:], whole[5:])
	body := whole[ticketHead:]
	p.body = string(body)
	p.ticket.Expires = time.UnixMilli(int64(binary.BigEndian.Uint64(body)))
	copy(p.id[:], body[8:])
	copy(p.target[:], body[24:])
	if end := binary.BigEndian.Uint64(body[40:]); end > 0 {
		p.ticket.SessionEnd = time.Unix(int64(end), 0)
	}
	rest := body[ticketFixed:]
	for _, text := range []*string{&p.ticket.User, &p.ticket.Backend, &p.ticket.Origin, &p.ticket.PassedOver} {
		if len(rest) < 2 {
			return p, false
		}
		n := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; len(rest) < n {
			return p, false
		}
		*text, rest = string(rest[:n]), rest[n:]
	}
	return p, len(rest) == 0 && checkUserID(p.ticket.User) == ""
}

// hashTarget stands for a URL's path and query, which may be long.
func hashTarget(target string) [16]byte {
	sum := sha256.Sum256([]byte(target))
	return [16]byte(sum[:])
}

// CutTicket takes the ticket out of a query, where it is the last parameter; found tells whether there was one.
func CutTicket(query string) (rest, ticket string, found bool) {
	const mark = TicketParameter + "="
	at := strings.LastIndex(query, mark)
	if at < 0 || at > 0 && query[at-1] != '&' {
		return query, "", false
	}
	return strings.TrimSuffix(query[:at], "&"), query[at+len(mark):], true
}
