package bridge

import (
	"context"
	"errors"
	"strconv"

	"github.com/cespare/xxhash/v2"
	"github.com/tidwall/gjson"
)

// message is one message as its broker gave it.
type message struct {
	body   []byte
	header func(name string) []string // the values of a header or a field; never nil
	// id is the same whenever the broker delivers this message, and no other message has it; empty where the broker has no such thing.
	id string
	// end is called once: true lets the broker forget the message, false leaves it to be delivered again. It does not wait.
	end func(settled bool)
	// keep puts a copy aside in the broker, and returns when that is certain; nil where the broker keeps nothing.
	keep func(context.Context, letter) error

	parsed bool // body has been found to be JSON
}

var errNoJSON = errors.New("the body is no JSON")

// json finds what stands at a path of the body.
func (m *message) json(path string) (gjson.Result, error) {
	if !m.parsed && !gjson.ValidBytes(m.body) { // else it would find something all the same
		return gjson.Result{}, errNoJSON
	}
	m.parsed = true
	return gjson.GetBytes(m.body, path), nil
}

// letter is a message, or one user's part of it, that is put aside.
type letter struct {
	reason reason
	user   string // "": all of the message
	text   string // what is wrong, for people
}

// Headers of what is put aside, fields in a Redis stream.
const (
	reasonHeader = "selvedge-reason"
	userHeader   = "selvedge-user"
	errorHeader  = "selvedge-error"
)

// headers are those that the letter adds to its message.
func (l letter) headers() map[string]string {
	h := map[string]string{reasonHeader: string(l.reason)}
	if l.user != "" {
		h[userHeader] = l.user
	}
	if l.text != "" {
		h[errorHeader] = l.text
	}
	return h
}

// place is the suffix of the name under which the broker keeps the letter.
func (l letter) place() string {
	if l.reason == isOffline {
		return placeOffline
	}
	return placeParked
}

// Where letters are kept: these are appended to the name of the queue or the stream.
const (
	placeParked  = "parked"
	placeOffline = "offline"
)

// reason is why a message is put aside; they are the labels of selvedge_bridge_put_aside_total.
type reason string

const (
	isMalformed reason = "malformed" // the body is no JSON, or the payload is not there or is no text
	hasNoUser   reason = "no_user"   // no user is named, or one that cannot be
	isRefused   reason = "refused"   // members will not take it, whoever asks: it is too large
	isReused    reason = "reused"    // another message came before with this message's id
	isExhausted reason = "exhausted" // it had its tries
	isOffline   reason = "offline"   // the user has no session, and that is to be kept
)

var reasons = []reason{isMalformed, hasNoUser, isRefused, isReused, isExhausted, isOffline}

// positionID makes an id of a message's position in what a broker keeps in order. A position names a message within its source only, and may come
// again where the source is made anew, so the id says what is there, too.
func positionID(kind, source, position string, body []byte) string {
	h := xxhash.New()
	_, _ = h.WriteString(source)
	_, _ = h.Write([]byte{0})
	_, _ = h.Write(body)
	return kind + "-" + position + "-" + strconv.FormatUint(h.Sum64(), 36)
}

const maxMessageID = 128 // bytes, which is what members take

// givenID makes an id of one that was chosen by a publisher.
func givenID(id string) string {
	if len(id) <= maxMessageID {
		return id
	}
	return "long-" + strconv.FormatUint(xxhash.Sum64String(id), 36) + "-" + strconv.Itoa(len(id))
}
