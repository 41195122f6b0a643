package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/testkit"
)

// issuer signs tokens, and publishes keys.
type issuer struct {
	rsa *rsa.PrivateKey
	ec  *ecdsa.PrivateKey
	ed  ed25519.PrivateKey
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{r, e, d}
}

// set is a JWK set of keys by their ids.
func set(t testing.TB, keys map[string]any) []byte {
	t.Helper()
	store := jwkset.NewMemoryStorage()
	for id, key := range keys {
		jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{
			Marshal:  jwkset.JWKMarshalOptions{Private: true},
			Metadata: jwkset.JWKMetadataOptions{KID: id},
		})
		if err == nil {
			err = store.KeyWrite(t.Context(), jwk)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	text, err := store.JSONPrivate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (i *issuer) public(t testing.TB) []byte {
	return set(t, map[string]any{"r": i.rsa.Public(), "e": i.ec.Public(), "d": i.ed.Public()})
}

func sign(t testing.TB, method jwt.SigningMethod, kid string, key any, claims jwt.MapClaims, header ...string) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	if kid != "" {
		token.Header["kid"] = kid
	}
	for n := 0; n < len(header); n += 2 {
		token.Header[header[n]] = []string{header[n+1]}
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

var tokenTime = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// claims are good ones, changed.
func claims(change ...any) jwt.MapClaims {
	c := jwt.MapClaims{"sub": "alice", "iss": "https://issuer.test", "aud": "chat", "exp": tokenTime.Add(time.Hour).Unix(), "nbf": tokenTime.Unix()}
	for n := 0; n < len(change); n += 2 {
		if c[change[n].(string)] = change[n+1]; change[n+1] == nil {
			delete(c, change[n].(string))
		}
	}
	return c
}

// verifier verifies the tokens of an issuer whose keys are in a file.
func verifier(t testing.TB, keys []byte, change ...func(*AuthConfig)) *Verifier {
	t.Helper()
	cfg := AuthConfig{JWKS: filepath.Join(t.TempDir(), "jwks.json"), Issuer: "https://issuer.test", Audience: "chat"}
	if err := os.WriteFile(cfg.JWKS, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range change {
		f(&cfg)
	}
	v, err := newVerifier(cfg, zap.NewNop(), func() time.Time { return tokenTime })
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func jwtKey(t testing.TB, expr string) Key {
	t.Helper()
	k, err := ParseKey(expr)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestTokens(t *testing.T) {
	is, other := newIssuer(t), newIssuer(t)
	v := verifier(t, is.public(t))
	es := func(c jwt.MapClaims, header ...string) string {
		return sign(t, jwt.SigningMethodES256, "e", is.ec, c, header...)
	}
	good := es(claims())
	parts := strings.Split(good, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	public, err := x509.MarshalPKIXPublicKey(is.rsa.Public())
	if err != nil {
		t.Fatal(err)
	}
	embedded := json.RawMessage(other.public(t))
	jku := jwt.NewWithClaims(jwt.SigningMethodES256, claims())
	jku.Header["jwk"], jku.Header["jku"] = embedded, "https://evil.test/jwks.json"
	own, err := jku.SignedString(other.ec)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		token  string
		user   string // "": refused
		reason Reason
		says   string
	}{
		"RS256":                    {token: sign(t, jwt.SigningMethodRS256, "r", is.rsa, claims()), user: "alice"},
		"ES256":                    {token: good, user: "alice"},
		"EdDSA":                    {token: sign(t, jwt.SigningMethodEdDSA, "d", is.ed, claims()), user: "alice"},
		"no key id":                {token: sign(t, jwt.SigningMethodES256, "", is.ec, claims()), user: "alice"},
		"several audiences":        {token: es(claims("aud", []string{"a", "chat"})), user: "alice"},
		"ended within the leeway":  {token: es(claims("exp", tokenTime.Add(-leeway+time.Second).Unix())), user: "alice"},
		"begins within the leeway": {token: es(claims("nbf", tokenTime.Add(leeway-time.Second).Unix())), user: "alice"},
		"a number":                 {token: es(claims("sub", 42)), user: "42"},
		"a large number":           {token: es(claims("sub", json.Number("12345678901234567890"))), user: "12345678901234567890"},
		"expired":                  {token: es(claims("exp", tokenTime.Add(-leeway-time.Second).Unix())), reason: BadToken, says: "has expired"},
		"without an end":           {token: es(claims("exp", nil)), reason: BadToken, says: "lacks a claim"},
		"end is text":              {token: es(claims("exp", "tomorrow")), reason: BadToken},
		"not yet valid":            {token: es(claims("nbf", tokenTime.Add(leeway+time.Second).Unix())), reason: BadToken, says: "not valid yet"},
		"another issuer":           {token: es(claims("iss", "https://evil.test")), reason: BadToken, says: "another issuer"},
		"no issuer":                {token: es(claims("iss", nil)), reason: BadToken},
		"another audience":         {token: es(claims("aud", "shop")), reason: BadToken, says: "another audience"},
		"no audience":              {token: es(claims("aud", nil)), reason: BadToken},
		"alg none":                 {token: b64([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + parts[1] + ".", reason: BadToken, says: "signature"},
		"alg None with key id":     {token: b64([]byte(`{"alg":"None","kid":"e"}`)) + "." + parts[1] + "." + parts[2], reason: BadToken},
		"no signature":             {token: parts[0] + "." + parts[1] + ".", reason: BadToken, says: "signature"},
		"two parts":                {token: parts[0] + "." + parts[1], reason: BadToken, says: "compact form"},
		"signature of another":     {token: sign(t, jwt.SigningMethodES256, "e", other.ec, claims()), reason: BadToken, says: "signature"},
		"another's, without id":    {token: sign(t, jwt.SigningMethodES256, "", other.ec, claims()), reason: BadToken, says: "signature"},
		"claims changed":           {token: parts[0] + "." + b64([]byte(`{"sub":"bob","exp":9999999999}`)) + "." + parts[2], reason: BadToken, says: "signature"},
		"HS256 by the public key in PEM": {token: sign(t, jwt.SigningMethodHS256, "r",
			pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), claims()), reason: BadToken, says: "signature"},
		"HS256 by the public key in DER": {token: sign(t, jwt.SigningMethodHS256, "r", public, claims()), reason: BadToken, says: "signature"},
		"algorithm not listed":           {token: sign(t, jwt.SigningMethodRS512, "r", is.rsa, claims()), reason: BadToken, says: "signature"},
		"algorithm of another key":       {token: sign(t, jwt.SigningMethodES256, "r", is.ec, claims()), reason: BadToken},
		"key brought along":              {token: own, reason: BadToken, says: "signature"},
		"critical extension":             {token: es(claims(), "crit", "b64"), reason: BadToken, says: "extension"},
		"unknown key":                    {token: sign(t, jwt.SigningMethodES256, "new", is.ec, claims()), reason: UnknownKey},
		"no such claim":                  {token: es(claims("sub", nil)), reason: BadToken, says: "who the user is"},
		"claim is null":                  {token: es(claims("sub", json.RawMessage("null"))), reason: BadToken, says: "who the user is"},
		"claim is a list":                {token: es(claims("sub", []string{"alice"})), reason: BadToken, says: "no text"},
		"claim is a fraction":            {token: es(claims("sub", json.Number("1.5"))), reason: BadToken, says: "no text"},
		"claim is empty":                 {token: es(claims("sub", "")), reason: BadToken, says: "empty"},
		"claim has a control":            {token: es(claims("sub", "a\nb")), reason: BadToken, says: "control"},
		"claim is too long":              {token: es(claims("sub", strings.Repeat("a", 257))), reason: BadToken, says: "257 bytes"},
		"empty":                          {token: "", reason: BadToken, says: "compact form"},
		"padded":                         {token: good + "=", reason: BadToken},
		"loose last bits":                {token: good[:len(good)-1] + string(good[len(good)-1]+1), reason: BadToken},
		"not base64":                     {token: "a.b.c", reason: BadToken},
		"a book":                         {token: strings.Repeat("x.", 5000), reason: BadToken},
	} {
		head := request(t, "/ws", "Authorization", "Bearer "+c.token)
		for _, again := range []string{"", ", again"} { // from memory
			who, err := v.Identify(jwtKey(t, "jwt:sub"), &head)
			if c.user != "" {
				if err != nil || who.User != c.user || who.Expires.IsZero() {
					t.Errorf("%s%s: %v, %v; want %s", name, again, who, err, c.user)
				}
				continue
			}
			var no *Error
			if !errors.As(err, &no) || who.User != "" || no.Reason != c.reason || no.Status() != http.StatusUnauthorized || !strings.Contains(no.Problem, c.says) {
				t.Errorf("%s%s: %v, %v; want it refused as %v, saying %q", name, again, who, err, c.reason, c.says)
				continue
			}
			for _, part := range strings.Split(c.token, ".") {
				if len(part) > 3 && (strings.Contains(no.Error(), part) || strings.Contains(no.Challenge(), part)) {
					t.Errorf("%s: the error repeats the token: %v", name, no)
				}
			}
			if !strings.HasPrefix(no.Challenge(), `Bearer error="invalid_token"`) {
				t.Errorf("%s: challenge %s", name, no.Challenge())
			}
		}
	}
}

func TestTokenSources(t *testing.T) {
	is := newIssuer(t)
	token := sign(t, jwt.SigningMethodES256, "e", is.ec, claims())
	bob := sign(t, jwt.SigningMethodES256, "e", is.ec, claims("sub", "bob"))
	const all = "header, cookie:sid, query:access_token, protocol"
	for name, c := range map[string]struct {
		sources, target string
		header          []string
		user            string // "": refused
		reason          Reason
	}{
		"header":                      {all, "/", []string{"Authorization", "Bearer " + token}, "alice", 0},
		"scheme in another case":      {all, "/", []string{"Authorization", "bEARER  " + token + " "}, "alice", 0},
		"another scheme":              {all, "/", []string{"Authorization", "Basic " + token}, "", Missing},
		"header twice, the same":      {all, "/", []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + token}, "alice", 0},
		"header twice":                {all, "/", []string{"Authorization", "Bearer " + token, "Authorization", "Bearer " + bob}, "", Ambiguous},
		"empty header":                {all, "/", []string{"Authorization", "Bearer"}, "", BadToken},
		"cookie":                      {all, "/", []string{"Cookie", "a=b; sid=" + token}, "alice", 0},
		"cookie twice":                {all, "/", []string{"Cookie", "sid=" + bob + "; sid=" + token}, "", Ambiguous},
		"query":                       {all, "/?a=b&access%5Ftoken=" + token, nil, "alice", 0},
		"query twice":                 {all, "/?access_token=" + bob + "&access%5Ftoken=" + token, nil, "", Ambiguous},
		"bad query":                   {all, "/?%zz&access_token=" + token, nil, "", Invalid},
		"protocol":                    {all, "/", []string{"Sec-WebSocket-Protocol", "chat, bearer, " + token + ", x"}, "alice", 0},
		"protocol without a mark":     {all, "/", []string{"Sec-WebSocket-Protocol", "chat," + token}, "", Missing},
		"protocol with a mark alone":  {all, "/", []string{"Sec-WebSocket-Protocol", "chat, bearer"}, "", Invalid},
		"the first wins":              {all, "/?access_token=" + bob, []string{"Authorization", "Bearer " + token}, "alice", 0},
		"the first wins, though bad":  {all, "/?access_token=" + bob, []string{"Authorization", "Bearer x"}, "", BadToken},
		"not asked for":               {"cookie:sid", "/?access_token=" + bob, []string{"Authorization", "Bearer " + token}, "", Missing},
		"none":                        {all, "/", nil, "", Missing},
		"the default is the header":   {"", "/", []string{"Authorization", "Bearer " + token}, "alice", 0},
		"the default is nothing else": {"", "/?access_token=" + token, []string{"Cookie", "sid=" + token}, "", Missing},
	} {
		v := verifier(t, is.public(t), func(c2 *AuthConfig) { c2.Token = c.sources })
		head := request(t, c.target, c.header...)
		who, err := v.Identify(jwtKey(t, "jwt:sub"), &head)
		if c.user != "" {
			if err != nil || who.User != c.user {
				t.Errorf("%s: %v, %v; want %s", name, who, err, c.user)
			}
			continue
		}
		var no *Error
		if !errors.As(err, &no) || no.Reason != c.reason || no.Status() != http.StatusUnauthorized {
			t.Errorf("%s: %v, %v; want a 401 for %v", name, who, err, c.reason)
		} else if c.reason == Missing && no.Challenge() != "Bearer" {
			t.Errorf("%s: challenge %q; nothing was wrong", name, no.Challenge())
		}
	}
	for list, says := range map[string]string{"": "want header", "header:X": "want header", "query:": "want header", "cookie": "want header",
		"header,": "want header", "cookie:a b": "name of a cookie", "jwt:sub": "want header"} {
		if _, err := parseTokenSources(list); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want an error that says %q", list, err, says)
		}
	}
}

func TestHidden(t *testing.T) {
	v := &Verifier{}
	var err error
	if v.sources, err = parseTokenSources("query:t,query:x y,protocol"); err != nil {
		t.Fatal(err)
	}
	for raw, want := range map[string]string{"": "", "a=b": "a=b", "t=1": "", "a=b&t=1&c": "a=b&c", "%74=1&&a": "&a", "t": "", "T=1&tt=2": "T=1&tt=2",
		"x+y=1&x%20y=2&z=%zz": "z=%zz", "%zz=1&t=2": "%zz=1"} {
		if got := v.HideQuery(raw); got != want {
			t.Errorf("%q: %q, want %q", raw, got, want)
		}
	}
	for list, want := range map[string]string{"chat": "chat", "bearer, t": "", "chat, bearer, t": "chat", "a,bearer,t,b": "a, b", "bearer": "bearer"} {
		rest, hidden := v.HideProtocols([]string{list})
		if got := strings.Join(rest, "|"); got != want || hidden != (got != list) {
			t.Errorf("%q: %q, %v; want %q", list, got, hidden, want)
		}
	}
}

func TestAuthConfig(t *testing.T) {
	is := newIssuer(t)
	weak, err := os.ReadFile("testdata/rsa1024.json")
	if err != nil {
		t.Fatal(err)
	}
	for says, change := range map[string]func(*AuthConfig){
		"jwks: missing":     func(c *AuthConfig) { c.JWKS = "" },
		"no such file":      func(c *AuthConfig) { c.JWKS += "x" },
		"want https":        func(c *AuthConfig) { c.JWKS = "http://issuer.test/jwks.json" },
		"shared secret":     func(c *AuthConfig) { c.Algorithms = []string{"RS256", "HS256"} },
		`"none" is none of`: func(c *AuthConfig) { c.Algorithms = []string{"none"} },
		"want header":       func(c *AuthConfig) { c.Token = "body" },
		"no JWK set":        func(c *AuthConfig) { _ = os.WriteFile(c.JWKS, []byte("<html>"), 0o600) },
		"no public key for signatures": func(c *AuthConfig) {
			_ = os.WriteFile(c.JWKS, set(t, map[string]any{"s": []byte("0123456789abcdef0123456789abcdef")}), 0o600)
		},
		"no public key": func(c *AuthConfig) { _ = os.WriteFile(c.JWKS, weak, 0o600) },
		"longer than":   func(c *AuthConfig) { _ = os.WriteFile(c.JWKS, make([]byte, jwksBytes+1), 0o600) },
	} {
		cfg := AuthConfig{JWKS: filepath.Join(t.TempDir(), "jwks.json")}
		if err := os.WriteFile(cfg.JWKS, is.public(t), 0o600); err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		if _, err := NewVerifier(cfg, zap.NewNop()); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want an error that says %q", err, says)
		}
	}
	// Private keys in the set, and a key that is of no use, do no harm.
	v := verifier(t, set(t, map[string]any{"e": is.ec, "r": crypto.PrivateKey(is.rsa), "s": []byte("secret")}))
	head := request(t, "/", "Authorization", "Bearer "+sign(t, jwt.SigningMethodES256, "e", is.ec, claims()))
	if who, err := v.Identify(jwtKey(t, "jwt:sub"), &head); err != nil || who.User != "alice" {
		t.Errorf("a set of private keys: %v, %v", who, err)
	}
}

// A remembered token is believed no longer than the token itself, and no longer than the issuer publishes its key.
func TestRememberedTokens(t *testing.T) {
	is, next := newIssuer(t), newIssuer(t)
	v := verifier(t, is.public(t))
	now := tokenTime
	v.now = func() time.Time { return now }
	head := request(t, "/", "Authorization", "Bearer "+sign(t, jwt.SigningMethodES256, "e", is.ec, claims("uid", "u1")))
	identify := func(expr string) string {
		who, err := v.Identify(jwtKey(t, expr), &head)
		if err != nil {
			return ""
		}
		return who.User
	}
	if a, b := identify("jwt:sub"), identify("jwt:uid"); a != "alice" || b != "u1" {
		t.Fatalf("%q, %q: two keys read two claims", a, b)
	}
	keys := v.keys.current.Load()
	if n := keys.known.Len(); n != 2 {
		t.Errorf("%d remembered, want 2", n)
	}
	v.parser = jwt.NewParser(jwt.WithValidMethods([]string{"nothing"})) // whoever is believed now is remembered
	if identify("jwt:sub") != "alice" {
		t.Error("not remembered")
	}
	now = tokenTime.Add(time.Hour - time.Second)
	if identify("jwt:sub") != "alice" {
		t.Error("forgotten too early")
	}
	now = tokenTime.Add(time.Hour)
	if who := identify("jwt:sub"); who != "" {
		t.Errorf("%s is still believed at the token's end", who)
	}
	now = tokenTime
	if err := os.WriteFile(v.cfg.JWKS, next.public(t), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := v.keys.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	if who := identify("jwt:sub"); who != "" {
		t.Errorf("%s is believed by a key that is gone", who)
	}
}

// The issuer rotates its keys, sends nonsense, and goes away.
func TestIssuer(t *testing.T) {
	is, next := newIssuer(t), newIssuer(t)
	var answer atomic.Pointer[func(http.ResponseWriter)]
	var reads atomic.Int64
	serve := func(f func(http.ResponseWriter)) { answer.Store(&f) }
	serve(func(w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reads.Add(1)
		(*answer.Load())(w)
	}))
	defer server.Close()
	v, err := NewVerifier(AuthConfig{JWKS: server.URL}, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); v.Run(ctx) }()
	defer func() { cancel(); <-done }()

	later := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix()}
	identify := func(kid string, key any) error {
		head := request(t, "/", "Authorization", "Bearer "+sign(t, jwt.SigningMethodES256, kid, key, later))
		_, err := v.Identify(jwtKey(t, "jwt:sub"), &head)
		return err
	}
	want := func(err error, reason Reason, status int) {
		t.Helper()
		var no *Error
		if !errors.As(err, &no) || no.Reason != reason || no.Status() != status {
			t.Errorf("%v, want it refused as %v with %d", err, reason, status)
		}
	}
	forget := func() { // that an unknown key was asked for
		v.keys.mu.Lock()
		v.keys.asked = time.Time{}
		v.keys.mu.Unlock()
	}
	testkit.Eventually(t, 5*time.Second, func() bool { _, failed := v.KeyReads(); return failed > 0 }, "the issuer has been asked")
	want(identify("e", is.ec), NoKeys, http.StatusServiceUnavailable)

	serve(func(w http.ResponseWriter) { _, _ = w.Write(is.public(t)) })
	if !v.Refresh(t.Context()) || identify("e", is.ec) != nil {
		t.Fatalf("the issuer is back: %v", identify("e", is.ec))
	}
	// A thousand strangers with key ids of their own make one read, and the rest do not wait.
	want(identify("x", is.ec), UnknownKey, http.StatusUnauthorized)
	forget()
	before := reads.Load()
	for range 1000 {
		v.Refresh(t.Context())
	}
	if n := reads.Load() - before; n != 1 {
		t.Errorf("%d reads for a thousand unknown keys, want 1", n)
	}
	// A new key is found when the first token comes that it signed.
	serve(func(w http.ResponseWriter) {
		_, _ = w.Write(set(t, map[string]any{"e": is.ec.Public(), "next": next.ec.Public()}))
	})
	want(identify("next", next.ec), UnknownKey, http.StatusUnauthorized)
	forget()
	if !v.Refresh(t.Context()) || identify("next", next.ec) != nil || identify("e", is.ec) != nil {
		t.Errorf("after a rotation: %v, %v", identify("next", next.ec), identify("e", is.ec))
	}
	// Whatever the issuer answers now, the last keys stay.
	for _, bad := range []func(http.ResponseWriter){
		func(w http.ResponseWriter) { w.WriteHeader(http.StatusNotFound) },
		func(w http.ResponseWriter) { _, _ = w.Write([]byte(`{"keys":[]}`)) },
		func(w http.ResponseWriter) { _, _ = w.Write([]byte(`<html>`)) },
		func(w http.ResponseWriter) { w.Header().Set("Location", "ftp://x/"); w.WriteHeader(http.StatusFound) },
		func(w http.ResponseWriter) { panic(http.ErrAbortHandler) },
	} {
		serve(bad)
		_, failed := v.KeyReads()
		forget()
		v.Refresh(t.Context())
		if _, now := v.KeyReads(); now == failed {
			t.Error("a bad answer counts as a good one")
		}
		if err := identify("next", next.ec); err != nil {
			t.Errorf("the last keys are gone: %v", err)
		}
	}
	// One that hangs is waited for as long as the request lasts, and others are not kept by it.
	hang := make(chan struct{})
	serve(func(http.ResponseWriter) { <-hang })
	forget()
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if v.Refresh(short) || identify("next", next.ec) != nil {
		t.Error("a hanging issuer")
	}
	close(hang)
}
