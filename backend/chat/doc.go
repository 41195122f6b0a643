// Package chat is the reference backend: a small real chat on package backend, used by `selvedge backend`, `selvedge dev` and the
// tests. It is also the example to start one's own service from.
//
//	/         the chat page
//	/ws       the chat
//	/echo     a WebSocket that sends every message back as it came
//	/whoami   JSON: the user of the request, this member, and how many sessions of the user it holds
//	/healthz  200
//
// The page connects with selvedge.js, which it loads from /.well-known/selvedge/client.js. An edge serves that by itself; the chat serves the same
// file, for those who come by another proxy.
//
// On /ws a client sends {"to":"bob","text":"hi"}, or "to":["bob","carol"]. Bob's sessions and the sender's other sessions get
// {"from":"alice","to":"bob","text":"hi","id":"..."}; the sending session gets {"ack":"<id>","outcome":"DELIVERED","sessions":2},
// with "error" where the outcome is not certain. The id is the client's, if it sent one: then it must be unique among the user's
// messages, and sending it again delivers it to nobody twice. Anything pushed from outside arrives as it was sent. A client that
// connects with hello=1 in the query is first told {"hello":{"user":...,"backend":...,"session":...}}.
package chat
