package peerv1

import (
	"encoding/hex"
	"maps"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/selvedge/selvedge/backend/pushv1"
)

// golden holds what members of version 1 say. The bytes in testdata/v1.txt are those that releases out there send and expect: a
// line there is never changed, whatever becomes of peer.proto.
var golden = map[string]proto.Message{
	"request hello":    request(&Request{Body: &Request_Hello{Hello: &Hello{}}}),
	"request goodbye":  request(&Request{Body: &Request_Goodbye{Goodbye: &Goodbye{}}}),
	"request poll":     request(&Request{Body: &Request_Poll{Poll: &Poll{Seen: 41, RingDigest: "d1"}}}),
	"request announce": request(&Request{Body: &Request_Announce{Announce: &Announce{Sequence: 42, Users: []uint64{1 << 63, 7}}}}),
	"request deliver": request(&Request{Body: &Request_Deliver{Deliver: &Deliver{
		User: "alice", Forward: true, RemainingMs: 5000, ExceptSession: "s1",
		Message: &Message{Id: "m1", Payload: &Message_Text{Text: "hé"}, Sender: "b", Sequence: 9},
	}}}),
	"request presence": request(&Request{Body: &Request_Presence{Presence: &Presence{User: "alice", Forward: true, RemainingMs: 300}}}),
	"request disconnect": request(&Request{Body: &Request_Disconnect{Disconnect: &Disconnect{
		User: "alice", Sessions: []string{"s1", "s2"}, Code: 1008, Reason: "kick", RemainingMs: 300,
	}}}),
	"request broadcast": request(&Request{Body: &Request_Broadcast{Broadcast: &Broadcast{
		Message: &Message{Id: "m2", Payload: &Message_Data{Data: []byte{0, 255}}}, RemainingMs: 300,
	}}}),
	"reply error": reply(&Reply{Body: &Reply_Error{Error: &Error{Code: "aborted", Message: "why", Reason: pushv1.Reason_UNSETTLED}}}),
	"reply poll": reply(&Reply{Body: &Reply_Poll{Poll: &PollReply{
		Sequence: 43, RingDigest: "d2", Members: []*RingMember{{Member: "a", Weight: 1}, {Member: "b", Weight: 300}}, Unchanged: true,
		Users: []uint64{1 << 63, 7}, SilentMs: map[string]uint32{"c": 1500},
	}}}),
	"reply announce": reply(&Reply{Body: &Reply_Announce{Announce: &AnnounceReply{}}}),
	"reply answer": reply(&Reply{Body: &Reply_Answer{Answer: &Answer{
		Sessions: []string{"s1", "s2"}, Complete: true, Openings: 12, MovingMs: 2000, Count: 5, Undecided: true,
		Presence: []*pushv1.Session{{Id: "s1", Device: "tv", Backend: "b", Since: "2026-01-02T03:04:05Z", Address: "192.0.2.1:5"}},
		Error:    &Error{Code: "unavailable", Message: "gone", Reason: pushv1.Reason_HOME_AWAY},
	}}}),
	"reply refusal": &Reply{Call: 300, Callee: &Callee{Version: 1, Process: process("b"), Refusal: Refusal_UNKNOWN_REQUEST}},
}

func request(r *Request) *Request {
	r.Call = 300
	r.Caller = &Caller{Version: 1, Process: process("a"), Callee: process("b"), Gossip: 0xfedcba9876543210}
	return r
}

func reply(r *Reply) *Reply {
	r.Call = 300
	r.Callee = &Callee{Version: 1, Process: process("b"), Draining: true, Refusal: Refusal_HELD_DEAD,
		Known: []*Process{process("a"), process("c")}, Dead: []*Process{{Member: "d", Incarnation: 4}}}
	return r
}

func process(id string) *Process {
	return &Process{Member: id, Incarnation: 0x0123456789abcdef, Addr: id + ":9100"}
}

// What version 1 has said still means what it meant.
func TestGolden(t *testing.T) {
	text, err := os.ReadFile("testdata/v1.txt")
	if err != nil {
		t.Fatal(err)
	}
	missing := maps.Clone(golden)
	for line := range strings.Lines(string(text)) {
		name, digits, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want, ok := golden[name]
		if !ok {
			t.Errorf("golden has no %q", name)
			continue
		}
		delete(missing, name)
		encoded, err := hex.DecodeString(digits)
		if err != nil {
			t.Fatal(err)
		}
		got := want.ProtoReflect().New().Interface()
		if err := proto.Unmarshal(encoded, got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, want)
		}
		if again, err := (proto.MarshalOptions{Deterministic: true}).Marshal(want); err != nil || hex.EncodeToString(again) != digits {
			t.Errorf("%s is sent as %x, %v; members of version 1 send %s", name, again, err, digits)
		}
	}
	for name, m := range missing {
		encoded, err := (proto.MarshalOptions{Deterministic: true}).Marshal(m)
		t.Errorf("testdata/v1.txt has no line\n%s: %x\n%v", name, encoded, err)
	}
}

// Every body has a line, so that none can change unseen.
func TestGoldenHasEveryBody(t *testing.T) {
	missing := make(map[protoreflect.FullName]bool)
	for _, m := range []proto.Message{new(Request), new(Reply)} {
		for fields, i := m.ProtoReflect().Descriptor().Oneofs().ByName("body").Fields(), 0; i < fields.Len(); i++ {
			missing[fields.Get(i).FullName()] = true
		}
	}
	for _, m := range golden {
		r := m.ProtoReflect()
		if body := r.WhichOneof(r.Descriptor().Oneofs().ByName("body")); body != nil {
			delete(missing, body.FullName())
		}
	}
	for name := range missing {
		t.Errorf("golden has no %s", name)
	}
}

// A later release's requests and replies can be read: what is not known is left out, and the rest counts.
func TestLaterRelease(t *testing.T) {
	body := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "new")
	later := func(m proto.Message) []byte {
		encoded, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		encoded = protowire.AppendBytes(protowire.AppendTag(encoded, 99, protowire.BytesType), body)
		return protowire.AppendVarint(protowire.AppendTag(encoded, 100, protowire.VarintType), 1)
	}

	want := request(new(Request))
	want.Caller.Version = 2
	want.Caller.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 50, protowire.VarintType), 1))
	r := new(Request)
	if err := proto.Unmarshal(later(want), r); err != nil {
		t.Fatal(err)
	}
	if r.Body != nil || r.Call != 300 || r.Caller.Version != 2 || r.Caller.Gossip != want.Caller.Gossip {
		t.Errorf("a request with a new body was read as %v", r)
	}

	refused := &Reply{Call: 300, Callee: &Callee{Version: 2, Refusal: 77}}
	got := new(Reply)
	if err := proto.Unmarshal(later(refused), got); err != nil {
		t.Fatal(err)
	}
	if got.Body != nil || got.Call != 300 || got.Callee.Refusal != 77 {
		t.Errorf("a reply with a new body was read as %v", got)
	}
}
