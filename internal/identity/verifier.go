package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/zap"
)

const (
	leeway      = 30 * time.Second // how far an issuer's clock may be off ours
	refreshWait = 3 * time.Second  // for a key that is not known yet
)

// Algorithms are the signatures that a token can be verified by. None of them works with a shared secret, and "none" is none of them.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// DefaultAlgorithms is what a token may be signed by where the configuration does not say.
var DefaultAlgorithms = []string{"RS256", "ES256", "EdDSA"}

// AuthConfig says whose tokens are believed. It is compared with ==, but for Algorithms.
type AuthConfig struct {
	JWKS       string   // the issuer's keys: path of a file, or https URL (http on this host)
	Issuer     string   // what `iss` must be; "": anything
	Audience   string   // what `aud` must hold; "": anything
	Algorithms []string // what tokens may be signed by; default [DefaultAlgorithms]
	Token      string   // where tokens are: header, cookie:NAME, query:NAME, protocol; several by comma; default [DefaultToken]
}

// Verifier verifies tokens, and remembers those that it has verified until they end or the issuer's keys change. It is safe for concurrent use, and none of its methods waits but Run and Refresh.
type Verifier struct {
	cfg     AuthConfig
	sources tokenSources
	keys    *keySet
	parser  *jwt.Parser
	now     func() time.Time
}

// Identity is who a request is from, and until when that is so.
type Identity struct {
	User    string
	Expires time.Time // of the token; zero where there is none
}

// NewVerifier makes a verifier; the error names the part of cfg that is wrong. A file of keys is read at once, and a URL by [Verifier.Run].
func NewVerifier(cfg AuthConfig, log *zap.Logger) (*Verifier, error) {
	return newVerifier(cfg, log, time.Now)
}

func newVerifier(cfg AuthConfig, log *zap.Logger, now func() time.Time) (*Verifier, error) {
	if cfg.JWKS == "" {
		return nil, errors.New("jwks: missing; say where the issuer's keys are: a file, or an https URL")
	}
	if cfg.Token == "" {
		cfg.Token = DefaultToken
	}
	if len(cfg.Algorithms) == 0 {
		cfg.Algorithms = DefaultAlgorithms
	}
	for _, a := range cfg.Algorithms {
		if err := checkAlgorithm(a); err != nil {
			return nil, err
		}
	}
	v := &Verifier{cfg: cfg, now: now}
	var err error
	if v.sources, err = parseTokenSources(cfg.Token); err != nil {
		return nil, err
	}
	if v.keys, err = newKeySet(cfg.JWKS, log); err != nil {
		return nil, err
	}
	options := []jwt.ParserOption{
		jwt.WithValidMethods(cfg.Algorithms), jwt.WithExpirationRequired(), jwt.WithLeeway(leeway), jwt.WithTimeFunc(now),
		jwt.WithJSONNumber(), jwt.WithStrictDecoding(),
	}
	if cfg.Issuer != "" {
		options = append(options, jwt.WithIssuer(cfg.Issuer))
	}
	if cfg.Audience != "" {
		options = append(options, jwt.WithAudience(cfg.Audience))
	}
	v.parser = jwt.NewParser(options...)
	return v, nil
}

func checkAlgorithm(name string) error {
	for _, known := range Algorithms {
		if name == known {
			return nil
		}
	}
	if strings.HasPrefix(name, "HS") {
		return fmt.Errorf("algorithms: %s signs with a shared secret: whoever can verify tokens could make them; want some of %s",
			name, strings.Join(Algorithms, ", "))
	}
	return fmt.Errorf("algorithms: %q is none of %s", name, strings.Join(Algorithms, ", "))
}

// Run keeps the keys fresh until ctx ends.
func (v *Verifier) Run(ctx context.Context) { v.keys.run(ctx) }

// Refresh reads the keys again after an [UnknownKey] or [NoKeys], and waits for that at most 3 s. False: nothing new is known, because
// that was done just now, or ctx is over.
func (v *Verifier) Refresh(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, refreshWait)
	defer cancel()
	return v.keys.refresh(ctx)
}

// Await waits until there are keys, or ctx is over.
func (v *Verifier) Await(ctx context.Context) bool {
	select {
	case <-v.keys.first:
		return true
	case <-ctx.Done():
		return false
	}
}

// KeyReads is how often the keys have been read, and how many of those reads failed.
func (v *Verifier) KeyReads() (all, failed uint64) {
	v.keys.mu.Lock()
	defer v.keys.mu.Unlock()
	return v.keys.reads, v.keys.failed
}

// Identify returns who head is from by its token and by key, which must be of the kind that [Key.NeedsAuth]. The error is an [*Error]. It
// costs a hash where the token has been verified before, else some 100 us; it never waits for anything.
func (v *Verifier) Identify(key Key, head *RequestHead) (Identity, error) {
	token, at, err := v.sources.find(head)
	if err != nil {
		return Identity{}, err
	}
	fail := func(reason Reason, problem string) (Identity, error) {
		return Identity{}, &Error{Reason: reason, Source: at.label, Problem: problem, Token: true}
	}
	keys := v.keys.current.Load()
	if keys == nil {
		return fail(NoKeys, "it cannot be verified now; try again later")
	}
	hash := sha256.Sum256([]byte(key.expr + "\x00" + token)) // no expression holds a NUL
	if who, ok := keys.known.Get(hash); ok && v.now().Before(who.Expires) {
		return who, nil
	}
	claims := jwt.MapClaims{}
	if _, err := v.parser.ParseWithClaims(token, claims, keys.find); err != nil {
		return fail(why(err))
	}
	who := Identity{}
	ends, err := claims.GetExpirationTime()
	if err != nil || ends == nil {
		return fail(BadToken, "it says no time at which it ends")
	}
	who.Expires = ends.Time
	var problem string
	if who.User, problem = key.claim(claims); problem != "" {
		return fail(BadToken, problem)
	}
	keys.known.Add(hash, who)
	return who, nil
}

var errCritical = errors.New("critical header parameters")

// find is jwt.Keyfunc over the set, but for what golang-jwt leaves unread: a token with critical parameters, none of which we know, must be
// refused, RFC 7515 section 4.1.11.
func (k *keys) find(token *jwt.Token) (any, error) {
	if _, critical := token.Header["crit"]; critical {
		return nil, errCritical
	}
	return k.Keyfunc.Keyfunc(token)
}

// why says what is wrong with a token in words of ours: those of the library repeat parts of it.
func why(err error) (Reason, string) {
	for _, c := range []struct {
		is      error
		problem string
	}{
		{jwt.ErrTokenMalformed, "it is no JWT in compact form"},
		{errCritical, "it asks for an extension that is not known here"},
		{jwt.ErrTokenSignatureInvalid, "its signature is wrong, or of a kind that is not accepted"},
		{jwt.ErrTokenUnverifiable, "it cannot be verified by the issuer's keys"},
		{jwt.ErrTokenRequiredClaimMissing, "it lacks a claim that it must have"},
		{jwt.ErrTokenExpired, "it has expired"},
		{jwt.ErrTokenNotValidYet, "it is not valid yet"},
		{jwt.ErrTokenInvalidIssuer, "it is of another issuer"},
		{jwt.ErrTokenInvalidAudience, "it is for another audience"},
	} {
		if errors.Is(err, jwkset.ErrKeyNotFound) {
			return UnknownKey, "it is signed by a key that the issuer does not publish"
		}
		if errors.Is(err, c.is) {
			return BadToken, c.problem
		}
	}
	return BadToken, "it is not valid"
}

// claim returns the user id that the claims hold at k: the first of the claims named that is there.
func (k Key) claim(claims jwt.MapClaims) (user, problem string) {
	for _, s := range k.sources {
		value, present := claims[s.name]
		if !present || value == nil {
			continue
		}
		switch value := value.(type) {
		case string:
			user = value
		case json.Number: // ids are numbers in many a database; 1e3 and 1.0 are not how those are written
			if strings.ContainsAny(value.String(), ".eE") {
				return "", "its claim is no text and no whole number"
			}
			user = value.String()
		default:
			return "", "its claim is no text and no whole number"
		}
		if problem := checkUserID(user); problem != "" {
			return "", "its claim " + problem
		}
		return strings.Clone(user), ""
	}
	return "", "it has none of the claims that say who the user is"
}
