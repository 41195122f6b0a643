// Package identity finds out whose request this is: it reads the user id that a route's key expression points at.
//
//	key, err := identity.ParseKey("query:user,cookie:uid")   // once, when the configuration is read
//	head := identity.FromHTTP(r)
//	user, err := key.UserID(&head)                           // per request; err is an *identity.Error
//
// An expression is a list of sources, separated by commas; the first one that is present in the request wins, and what it
// holds must be a valid user id, else the request is refused: a bad id never falls through to the next source.
//
//	query:NAME    parameter of the query string, decoded as forms are (%XX, and + for a space)
//	header:NAME   value of a header field, as sent
//	cookie:NAME   value of a cookie, as sent, without the double quotes that may surround it
//	path:N        N-th segment of the path, counted from 1, percent-decoded; an empty segment counts as absent
//	jwt:CLAIM     claim of a verified token; never together with sources that anyone can write
//	ip            address of the client
//	none          no user: any healthy member will do
//
// A user id is 1 to 256 bytes of valid UTF-8 without control characters and is compared byte by byte: no case folding, no
// normalisation. A source that holds two different values is refused as ambiguous, since the edge and the backend
// might each believe another one.
//
// A [Key] is immutable, does no I/O and is safe for concurrent use. Tokens are for a [Verifier], which keeps the issuer's public keys:
//
//	v, err := identity.NewVerifier(identity.AuthConfig{JWKS: "https://issuer.example/jwks.json", Audience: "chat"}, log)
//	go v.Run(ctx)
//	who, err := v.Identify(key, &head)                       // per request; never waits. After UnknownKey, v.Refresh(ctx) may help
//
// A token must end (exp), be valid now give or take 30 s, be signed by one of the algorithms that the configuration lists and by a key that
// the issuer publishes, and be of the issuer and for the audience that are configured.
//
// It also proves to members who says so. Edges and members share [Secrets]; with them an edge signs what it tells a member of a request, and mints a
// [Ticket] for a client that is to connect to a member by itself. A member's [Guard] takes each of both once:
//
//	header := secrets.Sign(&identity.Claims{Service: "chat", Member: "b1", RequestID: id, User: "alice"}, time.Now())
//	err := guard.Signature(header, claims, time.Now())
//
// Everything here is safe for concurrent use.
package identity
