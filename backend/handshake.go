package backend

import (
	"encoding/base64"
	"net/http"
	"strings"
)

// checkHandshake refuses what is no opening handshake (RFC 6455, 4.2.1) before anybody has heard of the session. 426 says what
// would be one.
func checkHandshake(r *http.Request) *Refusal {
	bad := func(text string) *Refusal { return &Refusal{Status: http.StatusBadRequest, Text: text} }
	switch {
	case !isUpgrade(r):
		return &Refusal{Status: http.StatusUpgradeRequired, Text: "this path speaks WebSocket"}
	case r.ProtoMajor != 1 || r.ProtoMinor < 1:
		return bad("a WebSocket is opened by HTTP/1.1")
	case r.Method != http.MethodGet:
		return bad("a WebSocket is opened by GET")
	case r.ContentLength != 0:
		return bad("a WebSocket is opened without a body") // it would be read as frames
	case !hasToken(r.Header["Connection"], "upgrade"):
		return bad("Connection: want Upgrade")
	case r.Header.Get("Sec-WebSocket-Version") != "13":
		return &Refusal{Status: http.StatusUpgradeRequired, Text: "Sec-WebSocket-Version: want 13"}
	}
	if key, err := base64.StdEncoding.DecodeString(r.Header.Get("Sec-WebSocket-Key")); err != nil || len(key) != 16 {
		return bad("Sec-WebSocket-Key: want 16 bytes in base64")
	}
	return nil
}

// chooseProtocol picks the first subprotocol that the client offers and the service speaks.
func (b *Backend) chooseProtocol(offered string) bool {
	for _, p := range b.cfg.Subprotocols {
		if p == offered {
			return true
		}
	}
	return false
}

func isUpgrade(r *http.Request) bool {
	return hasToken(r.Header["Upgrade"], "websocket")
}

// hasToken looks for a token in a header whose values are lists, without regard to case.
func hasToken(values []string, token string) bool {
	for _, value := range values {
		for part := range strings.SplitSeq(value, ",") {
			if strings.EqualFold(strings.TrimSpace(part), token) {
				return true
			}
		}
	}
	return false
}
