package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// DefaultToken is where tokens are looked for unless the configuration says otherwise.
const DefaultToken = "header"

// protocolMark is the subprotocol that the token follows in a list: new WebSocket(url, ["chat", "bearer", token]). It is the only way for a
// page of another site than the edge's to send a token that is in no log, since browsers let nobody set header fields of an upgrade.
const protocolMark = "bearer"

// tokenSources are the places where a token can be, in the order in which they are looked at.
type tokenSources []source

// parseTokenSources parses a list such as "header,cookie:sid,query:access_token,protocol".
func parseTokenSources(list string) (tokenSources, error) {
	var sources tokenSources
	for part := range strings.SplitSeq(list, ",") {
		part = strings.TrimSpace(part)
		typ, name, named := strings.Cut(part, ":")
		var s source
		var err error
		switch {
		case part == "header":
			s = source{kind: kindHeader, name: "Authorization", label: "Authorization"}
		case part == "protocol":
			s = source{kind: kindProtocol, name: "Sec-Websocket-Protocol", label: "Sec-WebSocket-Protocol"}
		case named && name != "" && (typ == "cookie" || typ == "query"):
			s, err = parseSource(part)
		default:
			err = fmt.Errorf("%q: want header, cookie:NAME, query:NAME or protocol", part)
		}
		if err != nil {
			return nil, fmt.Errorf("token %q: %w", list, err)
		}
		sources = append(sources, s)
	}
	return sources, nil
}

// find returns the token of a request. The first source that holds one wins. The error is an [*Error].
func (ts tokenSources) find(head *RequestHead) (token string, at *source, err error) {
	for i := range ts {
		s := &ts[i]
		var present bool
		switch s.kind {
		case kindHeader:
			token, present, err = s.single(bearers(head.Header("Authorization")))
		case kindProtocol:
			var offered []string
			if _, offered, err = splitProtocols(head.Header("Sec-Websocket-Protocol")); err == nil {
				token, present, err = s.single(offered)
			}
		default:
			token, present, err = s.read(head)
		}
		if refused := (*Error)(nil); errors.As(err, &refused) {
			refused.Source, refused.Token = s.label, true
			return "", s, refused
		}
		if present {
			return token, s, nil
		}
	}
	return "", nil, &Error{Reason: Missing, Source: ts.labels(), Problem: "not given", Token: true}
}

func (ts tokenSources) labels() string {
	labels := make([]string, len(ts))
	for i, s := range ts {
		labels[i] = s.label
	}
	return strings.Join(labels, " or ")
}

// bearers returns the tokens of Authorization fields, RFC 6750 section 2.1. Those of another scheme are none of ours.
func bearers(lines []string) (tokens []string) {
	for _, line := range lines {
		scheme, rest, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		if strings.EqualFold(scheme, "Bearer") {
			tokens = append(tokens, strings.Trim(rest, " \t"))
		}
	}
	return tokens
}

// splitProtocols divides the lists of Sec-WebSocket-Protocol into what is offered and the tokens. A mark that nothing follows is an error.
func splitProtocols(lines []string) (offered, tokens []string, err error) {
	for _, line := range lines {
		marked := false
		for entry := range strings.SplitSeq(line, ",") {
			switch entry = strings.Trim(entry, " \t"); {
			case marked:
				tokens = append(tokens, entry)
				marked = false
			case entry == protocolMark:
				marked = true
			default:
				offered = append(offered, entry)
			}
		}
		if marked {
			return nil, nil, &Error{Reason: Invalid, Problem: "no token follows " + protocolMark}
		}
	}
	return offered, tokens, nil
}

// HideQuery returns a query without the parameters that hold tokens, and otherwise as it came: neither a backend nor a log sees them.
func (v *Verifier) HideQuery(raw string) string {
	if raw == "" || !slices.ContainsFunc(v.sources, func(s source) bool { return s.kind == kindQuery }) {
		return raw
	}
	kept := make([]string, 0, 8)
	for pair := range strings.SplitSeq(raw, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if decoded, ok := unescape(name, true); ok {
			name = decoded
		}
		if !slices.ContainsFunc(v.sources, func(s source) bool { return s.kind == kindQuery && s.name == name }) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// HideProtocols returns Sec-WebSocket-Protocol without tokens and their mark, so that no backend picks one, and whether there were any. A
// browser wants one of what it has offered to be picked: where the backend picks none, the answer is to say [TokenProtocol].
func (v *Verifier) HideProtocols(lines []string) (rest []string, hidden bool) {
	if len(lines) == 0 || !slices.ContainsFunc(v.sources, func(s source) bool { return s.kind == kindProtocol }) {
		return lines, false
	}
	offered, tokens, err := splitProtocols(lines)
	if err != nil || len(tokens) == 0 {
		return lines, false
	}
	if len(offered) > 0 {
		rest = []string{strings.Join(offered, ", ")}
	}
	return rest, true
}

// TokenProtocol is the subprotocol that stands for "the token has been read".
const TokenProtocol = protocolMark
