package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

func read(t *testing.T, src any) []Member {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	members, err := src.(Reader).Read(ctx, "chat")
	if err != nil {
		t.Fatal(err)
	}
	return members
}

// TestReadConsul: a read has what was registered a moment ago, healthy or not, and no override of a watch's.
func TestReadConsul(t *testing.T) {
	t.Parallel()
	server := testkit.StartConsul(t)
	c := openConsul(t, server, "")
	if got := read(t, c); len(got) != 0 {
		t.Fatalf("at first: %s", show(got))
	}
	stop, self := announce(t, c, "chat")
	b1 := ours("b1", 9000)
	for _, state := range []State{Joining, Serving, Draining} {
		b1.State = state
		self <- b1
		testkit.Eventually(t, soon, func() bool { return slices.Equal(read(t, c), []Member{b1}) }, state.String())
	}

	err := server.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{
		ID: "old", Name: "chat", Port: 80, Check: &api.AgentServiceCheck{TTL: "1h", Status: "critical"},
	})
	if err != nil {
		t.Fatal(err)
	}
	old := Member{ID: "testkit/old", Addr: "127.0.0.1:80", Weight: 1, Health: Critical}
	testkit.Eventually(t, soon, func() bool { return slices.Equal(read(t, c), []Member{b1, old}) }, "one is critical")
	stop()

	server.Stop()
	if members, err := c.Read(t.Context(), "chat"); err == nil {
		t.Errorf("without Consul: %s", show(members))
	}
}

// TestReadIsConsistentOrNothing: a read asks for consistency whatever the watch does, and refuses half an answer.
func TestReadIsConsistentOrNothing(t *testing.T) {
	var filtered bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/internal/acl/authorize" {
			_, _ = io.WriteString(w, `[{"Resource":"service","Access":"read","Segment":"chat","Allow":true},{"Resource":"node","Access":"read"}]`)
			return
		}
		if q := r.URL.Query(); !q.Has("consistent") || q.Has("stale") || q.Has("cached") || q.Get("tag") != "blue" {
			t.Errorf("asked %s", r.URL)
		}
		w.Header().Set("X-Consul-Index", "1")
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		if filtered {
			w.Header().Set("X-Consul-Results-Filtered-By-ACLs", "true")
		}
		_ = json.NewEncoder(w).Encode([]*api.ServiceEntry{entry("b1")}) // the client is there
	}))
	defer server.Close()
	c, err := NewConsul(ConsulConfig{Addr: server.URL, Stale: true, Tag: "blue"}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.transport.CloseIdleConnections()
	if got := read(t, c); len(got) != 1 {
		t.Errorf("%s", show(got))
	}
	filtered = true
	if got, err := c.Read(t.Context(), "chat"); !errors.Is(err, errUnseen) || !strings.HasSuffix(err.Error(), "it lacks node:read") {
		t.Errorf("a filtered answer was taken: %s, %v", show(got), err)
	}
}

// TestReadElsewhere: a list, a file and memory as they are now, through a Remembered, too.
func TestReadElsewhere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "members.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("services: {chat: []}")
	file, err := NewFile(path, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	write("services: {chat: [{id: a, addr: 'a:1'}]}")
	list, err := NewStatic("a=a:1")
	if err != nil {
		t.Fatal(err)
	}
	memory := NewMemory()
	memory.Put("chat", member("a"))
	want := []Member{member("a")}
	for _, src := range []Source{file, list, memory} {
		remembered, err := Remember(src, t.TempDir(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, src := range []Source{src, remembered} {
			if got := read(t, src); !slices.Equal(got, want) {
				t.Errorf("%T: %v", src, mismatch(got, want))
			}
		}
	}
	write("services: [")
	if got, err := file.Read(t.Context(), "chat"); err == nil {
		t.Errorf("a broken file: %s", show(got))
	}
	mute, err := Remember(silent{}, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mute.Read(t.Context(), "chat"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a source that cannot be read: %v", err)
	}
}
