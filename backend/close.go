package backend

import (
	"strings"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// CloseReason says why a session ended. A session closes once, for one reason; its String is the metric label.
type CloseReason uint8

const (
	ClosedByClient  CloseReason = iota // the client sent a close frame
	ConnectionLost                     // the connection ended without one
	ClosedByService                    // Session.Close
	Moved                              // its user belongs to another member now
	Restart                            // this member drains
	Stopped                            // this member stops without waiting
	Kicked                             // Disconnect
	Overloaded                         // its write queue was full
	TooBig                             // it sent a message above Config.MessageBytes
	ProtocolError                      // it broke RFC 6455
	Expired                            // the user's token ended
	RateExceeded                       // it sent more than Limits.MessagesPerSecond
	PingTimeout                        // it did not answer a ping within Config.PongTimeout
	Panicked                           // a handler of the service panicked
	Refused                            // it never opened: OnOpen said no
)

var closeReasons = [...]struct {
	label string
	code  ws.StatusCode
	text  string // of the close frame
}{
	ClosedByClient:  {"client", ws.StatusNormalClosure, ""},
	ConnectionLost:  {"lost", 0, ""},
	ClosedByService: {"service", ws.StatusNormalClosure, ""},
	Moved:           {"moved", 1012, "moved"},
	Restart:         {"restart", 1012, "restart"},
	Stopped:         {"stopped", ws.StatusGoingAway, "stopped"},
	Kicked:          {"kick", ws.StatusPolicyViolation, "kick"},
	Overloaded:      {"overloaded", 1013, "overloaded"},
	TooBig:          {"too_big", ws.StatusMessageTooBig, "message too big"},
	ProtocolError:   {"protocol", ws.StatusProtocolError, "protocol error"},
	Expired:         {"expired", ws.StatusPolicyViolation, "token expired"},
	RateExceeded:    {"rate", ws.StatusPolicyViolation, "too many messages"},
	PingTimeout:     {"ping_timeout", ws.StatusInternalServerError, "ping timeout"},
	Panicked:        {"panic", ws.StatusInternalServerError, "internal error"},
	Refused:         {"refused", 0, ""},
}

// String returns the metric label of r.
func (r CloseReason) String() string { return closeReasons[r].label }

// frame compiles the close frame for r; code 0 and an empty text take r's own.
func (r CloseReason) frame(code ws.StatusCode, text string) []byte {
	if code == 0 {
		code = closeReasons[r].code
	}
	if text == "" {
		text = closeReasons[r].text
	}
	return ws.MustCompileFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(code, clipReason(text))))
}

// maxCloseReason is what a control frame of 125 bytes leaves behind the code.
const maxCloseReason = 123

// clipReason makes text fit into a close frame without cutting a character in two.
func clipReason(text string) string {
	text = strings.ToValidUTF8(text, "")
	if len(text) <= maxCloseReason {
		return text
	}
	end := maxCloseReason
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end]
}

// validCloseCode tells whether code may stand in a close frame: those that IANA's registry has for the wire (RFC 6455, 7.4, and
// 1012 to 1014), and 3000 to 4999. [ws.CheckCloseFrameData] knows neither the later ones nor the upper bound.
func validCloseCode(code ws.StatusCode) bool {
	switch {
	case code >= 1000 && code <= 1014:
		return code < 1004 || code > 1006
	default:
		return code >= 3000 && code <= 4999
	}
}
