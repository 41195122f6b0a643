package edge

import (
	"context"
	"errors"
	"net/http"
	"reflect"
	"slices"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/identity"
)

// Auth says whose tokens are believed, for routes whose key is jwt:CLAIM.
type Auth struct {
	JWKS       string   // the issuer's public keys: path of a file, or https URL (http on this host). Re-read by itself
	Issuer     string   // what a token's iss must be; "": not looked at
	Audience   string   // what its aud must hold; "": not looked at
	Algorithms []string // what it may be signed by; default RS256, ES256, EdDSA. Shared secrets (HS256) are refused
	Token      string   // where it is: header (Authorization: Bearer), cookie:NAME, query:NAME, protocol; several by comma; default header

	// OutlivesToken lets sessions go on when their token has ended: backends are not told when that is.
	OutlivesToken bool
}

func (a Auth) isSet() bool { return !reflect.DeepEqual(a, Auth{}) }

// auth is an Auth at work. It outlives reloads that leave that as it is.
type auth struct {
	cfg      Auth
	verifier *identity.Verifier
	stop     context.CancelFunc // nil before it runs; under Edge.mu
}

// newAuth makes an auth, or returns last where that does the same; nil without a configuration.
func newAuth(cfg Auth, last *auth, log *zap.Logger) (*auth, error) {
	if !cfg.isSet() {
		return nil, nil
	}
	if last != nil && reflect.DeepEqual(last.cfg, cfg) {
		return last, nil
	}
	v, err := identity.NewVerifier(identity.AuthConfig{
		JWKS: cfg.JWKS, Issuer: cfg.Issuer, Audience: cfg.Audience, Algorithms: slices.Clone(cfg.Algorithms), Token: cfg.Token,
	}, log)
	if err != nil {
		return nil, config.Under("auth", err)
	}
	return &auth{cfg: cfg, verifier: v}, nil
}

// verify starts to keep the keys of a fresh, if the edge runs. It is called under mu.
func (e *Edge) verify(a *auth) {
	if a == nil || e.work == nil || a.stop != nil {
		return
	}
	var ctx context.Context
	ctx, a.stop = context.WithCancel(e.work)
	e.running.Go(func() { a.verifier.Run(ctx) })
}

// awaitKeys gives the issuer of a configuration that is new a moment to answer.
func (e *Edge) awaitKeys(a *auth) {
	if a == nil || e.work == nil {
		return
	}
	ctx, cancel := context.WithTimeout(e.work, reloadPatience)
	defer cancel()
	if !a.verifier.Await(ctx) {
		e.log.Warn("the keys that verify tokens are not known yet; requests with tokens are refused until they are")
	}
}

// identify finds the user, and has the backend see no token that came in the query or as a subprotocol.
func (x *exchange) identify(r *http.Request) *refusal {
	if !x.route.key.NeedsAuth() {
		user, err := x.route.key.UserID(&x.head)
		if err != nil {
			return &refusal{http.StatusBadRequest, badUser, err.Error(), true}
		}
		x.user = user
		return nil
	}
	v := x.live.auth.verifier
	who, err := v.Identify(x.route.key, &x.head)
	no := (*identity.Error)(nil)
	if errors.As(err, &no) && (no.Reason == identity.UnknownKey || no.Reason == identity.NoKeys) && x.mayWait && v.Refresh(r.Context()) {
		who, err = v.Identify(x.route.key, &x.head)
	}
	if errors.As(err, &no) {
		x.challenge = no.Challenge()
		return &refusal{no.Status(), tokenReason(no.Reason), no.Error(), true}
	}
	x.user = who.User
	if !x.live.auth.cfg.OutlivesToken {
		x.expires = who.Expires
	}
	r.URL.RawQuery = v.HideQuery(r.URL.RawQuery)
	if protocols, hidden := v.HideProtocols(r.Header["Sec-Websocket-Protocol"]); hidden {
		x.tokenProtocol = true
		if r.Header["Sec-Websocket-Protocol"] = protocols; protocols == nil {
			delete(r.Header, "Sec-Websocket-Protocol")
		}
	}
	return nil
}

func tokenReason(r identity.Reason) reason {
	switch r {
	case identity.Missing:
		return noToken
	case identity.UnknownKey:
		return unknownKey
	case identity.NoKeys:
		return noKeys
	}
	return badToken
}
