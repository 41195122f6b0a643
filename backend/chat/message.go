package chat

import (
	"encoding/json"
	"errors"
	"fmt"
)

const (
	maxReceivers = 100
	maxID        = 64 // bytes of a client's own message id
)

// receivers is one user id or a list of them, on the wire as it came.
type receivers struct {
	users []string
	list  bool
}

func (r *receivers) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		r.list = true
		return json.Unmarshal(data, &r.users)
	}
	r.users = make([]string, 1)
	return json.Unmarshal(data, &r.users[0])
}

func (r receivers) MarshalJSON() ([]byte, error) {
	if r.list || len(r.users) != 1 {
		return json.Marshal(r.users)
	}
	return json.Marshal(r.users[0])
}

// say is what a client sends.
type say struct {
	To   receivers `json:"to"`
	Text string    `json:"text"`
	ID   string    `json:"id"`
}

// said is what receivers, and the sender's other sessions, get.
type said struct {
	From string    `json:"from"`
	To   receivers `json:"to"`
	Text string    `json:"text"`
	ID   string    `json:"id"`
}

// ack is what the sending session gets. With several receivers, outcome is DELIVERED where any of them was reached and
// sessions is their sum; results has each.
type ack struct {
	ID       string   `json:"ack"`
	Outcome  string   `json:"outcome,omitempty"`
	Sessions int      `json:"sessions"`
	Error    string   `json:"error,omitempty"`
	Results  []result `json:"results,omitempty"`
}

type result struct {
	User     string `json:"user"`
	Outcome  string `json:"outcome,omitempty"`
	Sessions int    `json:"sessions"`
	Error    string `json:"error,omitempty"`
}

type hello struct {
	Hello welcome `json:"hello"`
}

type welcome struct {
	User    string `json:"user"`
	Backend string `json:"backend"`
	Session string `json:"session"`
}

// parseSay reads a client's message; the error is for the client's developer.
func parseSay(data []byte) (say, error) {
	var m say
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf(`want {"to":"bob","text":"hi"}: %w`, err)
	}
	switch {
	case len(m.To.users) == 0 || m.To.users[0] == "":
		return m, errors.New(`"to": name a user, or a list of users`)
	case len(m.To.users) > maxReceivers:
		return m, fmt.Errorf(`"to": %d users; want at most %d`, len(m.To.users), maxReceivers)
	case len(m.ID) > maxID:
		return m, fmt.Errorf(`"id": %d bytes; want at most %d`, len(m.ID), maxID)
	}
	return m, nil
}
