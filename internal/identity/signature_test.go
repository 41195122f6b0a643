package identity

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

var may = time.Date(2026, 5, 1, 12, 0, 0, 123_000_000, time.UTC)

var sampleClaims = Claims{Service: "chat", Member: "b1", RequestID: "7f", User: "j%C3%B6rg", Expires: "2026-05-01T13:00:00Z"}

// Computed apart, with Python's hmac; they hold for as long as there are edges and members of different releases.
func TestSignatureVectors(t *testing.T) {
	anonymous := sampleClaims
	anonymous.User, anonymous.Expires = "", ""
	for want, c := range map[string]Claims{
		"v1.82995cb2.1777636800123.CgTXXv0QfPfdVl3KtvUukzozA2g8MwR55nROWHwR06E": sampleClaims,
		"v1.82995cb2.1777636800123.O4LUCRgWoAfK4_XC-EPDowM4_KklVphXrPpcbtBNXqU": anonymous,
	} {
		s := secretsOf(t, ones)
		if got := s.Sign(&c, may); got != want {
			t.Errorf("%+v: %s, want %s", c, got, want)
		}
	}
}

func TestSignatureTable(t *testing.T) {
	edge := secretsOf(t, ones)
	text := edge.Sign(&sampleClaims, may)
	with := func(change func(*Claims)) Claims { c := sampleClaims; change(&c); return c }
	none := func(*Claims) {}
	for name, c := range map[string]struct {
		keys    []string
		service string
		member  string
		text    string
		change  func(*Claims)
		at      time.Duration
		want    error
	}{
		"as signed":          {text: text, change: none},
		"second of two keys": {text: text, change: none, keys: []string{twos, ones}},
		"another key":        {text: text, change: none, keys: []string{twos}, want: ErrUnknownKey},
		"no user any more":   {text: text, change: func(c *Claims) { c.User = "" }, want: ErrForged},
		"another user":       {text: text, change: func(c *Claims) { c.User = "bob" }, want: ErrForged},
		"another request":    {text: text, change: func(c *Claims) { c.RequestID = "7e" }, want: ErrForged},
		"a later end":        {text: text, change: func(c *Claims) { c.Expires = "2027-05-01T13:00:00Z" }, want: ErrForged},
		"no end":             {text: text, change: func(c *Claims) { c.Expires = "" }, want: ErrForged},
		"fields shifted":     {text: text, change: func(c *Claims) { c.RequestID, c.User = "7fj", "%C3%B6rg" }, want: ErrForged},
		"another service":    {text: text, change: none, service: "game", want: ErrForged},
		"another member":     {text: text, change: none, member: "b2", want: ErrForged},
		"another time":       {text: strings.Replace(text, "123.", "124.", 1), change: none, want: ErrForged},
		"30 s late":          {text: text, change: none, at: ClockSkew},
		"30 s early":         {text: text, change: none, at: -ClockSkew},
		"too late":           {text: text, change: none, at: ClockSkew + time.Millisecond, want: ErrClock},
		"too early":          {text: text, change: none, at: -ClockSkew - time.Millisecond, want: ErrClock},
		"empty":              {change: none, want: ErrMalformed},
		"another version":    {text: "v2" + text[2:], change: none, want: ErrMalformed},
		"key in capitals":    {text: strings.ToUpper(text[:12]) + text[12:], change: none, want: ErrMalformed},
		"MAC cut":            {text: text[:len(text)-1], change: none, want: ErrMalformed},
		"more behind":        {text: text + ".", change: none, want: ErrMalformed},
		"loose last bits":    {text: text[:len(text)-5] + "AAAAB", change: none, want: ErrMalformed}, // four bits that no byte has
		"MAC all zero":       {text: text[:len(text)-43] + strings.Repeat("A", 43), change: none, want: ErrForged},
		"a ticket": {text: "v1." + edge.first().id.String() + "." + fmt.Sprint(may.UnixMilli()) + "." +
			edge.Mint("chat", &Ticket{User: "u"})[7:50], change: none, want: ErrMalformed},
	} {
		keys := c.keys
		if keys == nil {
			keys = []string{ones}
		}
		service, member := "chat", "b1"
		if c.service != "" {
			service = c.service
		}
		if c.member != "" {
			member = c.member
		}
		v := NewGuard(secretsOf(t, keys...), service, member)
		if err := v.Signature(c.text, with(c.change), may.Add(c.at)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		} else if again := v.Signature(c.text, with(c.change), may.Add(c.at)); err == nil && !errors.Is(again, ErrReplayed) {
			t.Errorf("%s: a second time: %v", name, again)
		}
	}
}

// What signs cannot mint, and the other way round, though both come from one secret.
func TestDomainsAreSeparate(t *testing.T) {
	s := secretsOf(t, ones).first()
	a := s.sign.sum(nil, "x")
	b := s.tickets.sum(nil, "x")
	if string(a) == string(b) || string(a[:4]) == string(s.id[:]) {
		t.Error("two uses of a secret share a key")
	}
}

func FuzzSignature(f *testing.F) {
	s := secretsOf(f, ones)
	f.Add(s.Sign(&sampleClaims, may))
	f.Add("v1.00000000.0.")
	f.Fuzz(func(t *testing.T, text string) {
		sig, ok := parseSignature(text)
		if !ok {
			return
		}
		// One spelling each: what is read is written the same.
		again := "v1." + sig.key.String() + "." + sig.at + "." + base64.RawURLEncoding.EncodeToString(sig.sum[:])
		if again != text {
			t.Errorf("%q reads as %q", text, again)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s := secretsOf(b, ones)
	b.ReportAllocs()
	for b.Loop() {
		s.Sign(&sampleClaims, may)
	}
}

func BenchmarkVerify(b *testing.B) {
	s := secretsOf(b, ones)
	v := NewGuard(s, "chat", "b1")
	b.ReportAllocs()
	text := s.Sign(&sampleClaims, may)
	for b.Loop() {
		_ = v.Signature(text, sampleClaims, may)
	}
}
