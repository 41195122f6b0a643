package identity

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

var sampleTicket = Ticket{User: "jörg", Backend: "b1", Target: "/ws?device=d", Expires: may.Add(TicketLife),
	SessionEnd: may.Add(time.Hour).Truncate(time.Second), Origin: "https://chat.example.com", PassedOver: "b2"}

func TestTicketTable(t *testing.T) {
	edge := secretsOf(t, ones)
	text := edge.Mint("chat", &sampleTicket)
	if len(text) > 250 {
		t.Errorf("%d characters for a ticket", len(text))
	}
	spliced := func() string { // alice's MAC in front of bob's body
		a, _ := base64.RawURLEncoding.DecodeString(text)
		other := sampleTicket
		other.User = "bob"
		b, _ := base64.RawURLEncoding.DecodeString(edge.Mint("chat", &other))
		return base64.RawURLEncoding.EncodeToString(append(a[:ticketHead:ticketHead], b[ticketHead:]...))
	}()
	for name, c := range map[string]struct {
		keys            []string
		service, member string
		text, target    string
		at              time.Duration
		want            error
		known           bool // the ticket's words are given all the same
	}{
		"as minted":          {},
		"the last moment":    {at: TicketLife - time.Millisecond},
		"expired":            {at: TicketLife, want: ErrExpired, known: true},
		"from the future":    {at: -ClockSkew - time.Millisecond, want: ErrClock, known: true},
		"second of two keys": {keys: []string{twos, ones}},
		"after rotation":     {keys: []string{twos}, want: ErrUnknownKey},
		"another backend":    {member: "b2", want: ErrOtherBackend, known: true},
		"another service":    {service: "game", want: ErrForged},
		"another path":       {target: "/admin?device=d", want: ErrOtherTarget, known: true},
		"another user's URL": {target: "/ws?device=d&user=bob", want: ErrOtherTarget, known: true},
		"forged":             {text: spliced, want: ErrForged},
		"cut":                {text: text[:len(text)-2], want: ErrMalformed},
		"nothing":            {text: "-", want: ErrMalformed},
		"a signature":        {text: strings.ReplaceAll(edge.Sign(&sampleClaims, may), ".", "-"), want: ErrMalformed},
	} {
		set := func(s *string, or string) {
			if *s == "" {
				*s = or
			}
		}
		set(&c.service, "chat")
		set(&c.member, "b1")
		set(&c.text, text)
		set(&c.target, sampleTicket.Target)
		if c.keys == nil {
			c.keys = []string{ones}
		}
		v := NewGuard(secretsOf(t, c.keys...), c.service, c.member)
		got, err := v.Ticket(c.text, c.target, may.Add(c.at))
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
			continue
		}
		want := sampleTicket
		want.Target, want.Expires = got.Target, want.Expires.Local().Truncate(time.Millisecond)
		want.SessionEnd = want.SessionEnd.Local()
		if err == nil || c.known {
			if got != want {
				t.Errorf("%s: reads %+v, want %+v", name, got, want)
			}
		} else if got != (Ticket{}) {
			t.Errorf("%s: a ticket that nobody vouches for was given out: %+v", name, got)
		}
		if _, again := v.Ticket(c.text, c.target, may.Add(c.at)); err == nil && !errors.Is(again, ErrReplayed) {
			t.Errorf("%s: a second time: %v", name, again)
		}
	}
}

// A refusal uses nothing up.
func TestRefusedTicketStaysGood(t *testing.T) {
	text := secretsOf(t, ones).Mint("chat", &sampleTicket)
	v := NewGuard(secretsOf(t, ones), "chat", "b1")
	if _, err := v.Ticket(text, "/other", may); !errors.Is(err, ErrOtherTarget) {
		t.Fatal(err)
	}
	if _, err := v.Ticket(text, sampleTicket.Target, may); err != nil {
		t.Error(err)
	}
}

// As TestSignatureVectors. A ticket holds random bytes, so an old one is read instead of a new one written.
func TestTicketVector(t *testing.T) {
	const text = "AYKZXLIsY5aUH0pNXB8-ZJPwVXiieWtvd1w2ir1vLAXRokkjvgAAAZ3jaWurAAECAwQFBgcICQoLDA0OD0XXehCu63gt-I66yz7DeYUAAAAAafSj0AAFasO2cmcAAmIxABhodHRwczovL2NoYXQuZXhhbXBsZS5jb20AAmIy"
	got, err := NewGuard(secretsOf(t, ones), "chat", "b1").Ticket(text, "/ws?device=d", may)
	want := sampleTicket
	want.Expires, want.SessionEnd = want.Expires.Local(), want.SessionEnd.Local()
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestCutTicket(t *testing.T) {
	for query, want := range map[string][2]string{
		"selvedge_ticket=abc":                       {"", "abc"},
		"user=alice&selvedge_ticket=abc":            {"user=alice", "abc"},
		"a=1&selvedge_ticket=x&selvedge_ticket=abc": {"a=1&selvedge_ticket=x", "abc"},
		"selvedge_ticket=abc&user=bob":              {"", "abc&user=bob"}, // which is no ticket
		"xselvedge_ticket=abc":                      {"xselvedge_ticket=abc", "none"},
		"":                                          {"", "none"},
	} {
		rest, ticket, found := CutTicket(query)
		if !found {
			ticket = "none"
		}
		if rest != want[0] || ticket != want[1] {
			t.Errorf("%q: %q, %q", query, rest, ticket)
		}
	}
}

func FuzzTicket(f *testing.F) {
	s := secretsOf(f, ones)
	f.Add(s.Mint("chat", &sampleTicket))
	v := NewGuard(s, "chat", "b1")
	f.Fuzz(func(t *testing.T, text string) {
		p, ok := parseTicket(text)
		if ok && len(text) > 6000 {
			t.Errorf("%d characters are taken", len(text))
		}
		if !ok && p.ticket.User != "" && checkUserID(p.ticket.User) != "" {
			return
		}
		if _, err := v.Ticket(text, "/", may); err == nil {
			t.Errorf("%q is taken", text)
		}
	})
}

func BenchmarkMint(b *testing.B) {
	s := secretsOf(b, ones)
	b.ReportAllocs()
	for b.Loop() {
		s.Mint("chat", &sampleTicket)
	}
}
