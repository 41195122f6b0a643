package systemtest

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/selvedge/selvedge/internal/testkit"
)

// receiver is a collector that takes OTLP over HTTP.
type receiver struct {
	*httptest.Server

	mu    sync.Mutex
	spans map[string][]tracedSpan // by trace
}

type tracedSpan struct {
	id, parent, name, process string
	attributes                map[string]string
}

func startReceiver(t *testing.T) *receiver {
	r := &receiver{spans: make(map[string][]tracedSpan)}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		export := new(collector.ExportTraceServiceRequest)
		if err != nil || request.URL.Path != "/v1/traces" || proto.Unmarshal(body, export) != nil {
			t.Errorf("%s: %v", request.URL, err)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, from := range export.ResourceSpans {
			process := ""
			for _, a := range from.Resource.Attributes {
				if a.Key == "service.instance.id" {
					process = a.Value.GetStringValue()
				}
			}
			for _, scope := range from.ScopeSpans {
				for _, s := range scope.Spans {
					trace := hex.EncodeToString(s.TraceId)
					own := tracedSpan{hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId), s.Name, process, make(map[string]string)}
					for _, a := range s.Attributes {
						own.attributes[a.Key] = a.Value.GetStringValue()
						if n := a.Value.GetIntValue(); n != 0 {
							own.attributes[a.Key] = fmt.Sprint(n)
						}
					}
					r.spans[trace] = append(r.spans[trace], own)
				}
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// of returns the spans of a trace that have come.
func (r *receiver) of(trace string) []tracedSpan {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]tracedSpan(nil), r.spans[trace]...)
}

// way follows a trace from the span that its first parent names: the names of spans, one within the other, with where each was made.
func way(spans []tracedSpan, parent string) (names []string) {
	for _, s := range spans {
		if s.parent == parent {
			names = append(names, s.name+" at "+s.process)
			for _, below := range way(spans, s.id) {
				names = append(names, "  "+below)
			}
		}
	}
	return names
}

// Each of many pushes at once that share the streams between an edge and the members has its own trace, from whoever called the edge on to the member
// that holds the session, be it elsewhere than at home.
func TestTraces(t *testing.T) {
	collecting := startReceiver(t)
	c := newCluster(t, 0, 0)
	config := filepath.Join(t.TempDir(), "selvedge.yaml")
	writeFile(t, config, fmt.Sprintf("tracing: {otlp: %q}\nbackend: {on_move: keep}\n", collecting.URL))
	edgeConfig := filepath.Join(t.TempDir(), "edge.yaml")
	writeFile(t, edgeConfig, fmt.Sprintf("tracing: {otlp: %q}\nname: front\n", collecting.URL))
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
	c.addBackend("b1", "--config", config)
	c.addBackend("b2", "--config", config)
	edge := c.addEdge("edge", "--config", edgeConfig, "--consul", c.consul.Addr)
	c.awaitRing(2)
	users := userNames(100)
	crowd := online(t, users, 1, edge)
	c.addBackend("b3", "--config", config) // owns some of them, who stay where they are
	c.awaitRing(3)
	owner := c.owners(users)
	held := make(map[string]string)
	for _, d := range crowd.devices {
		held[d.user] = d.held()
	}

	const caller = "b7ad6b7169203331"
	trace := func(i int) string { return fmt.Sprintf("4bf92f3577b34da6a3ce929d%08x", i+1) }
	var calls sync.WaitGroup
	for i, user := range users {
		calls.Go(func() {
			body := fmt.Sprintf(`{"user":%q,"text":"hi","traceparent":"00-%s-%s-01"}`, user, trace(i), caller)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+edge.admin+"/selvedge.push.v1.PushService/Push", strings.NewReader(body))
			if i%2 == 1 { // as most HTTP clients do
				request, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+edge.admin+"/selvedge.push.v1.PushService/Push",
					strings.NewReader(fmt.Sprintf(`{"user":%q,"text":"hi"}`, user)))
				request.Header.Set("Traceparent", fmt.Sprintf("00-%s-%s-01", trace(i), caller))
			}
			if err != nil {
				t.Error(err)
				return
			}
			request.Header.Set("Content-Type", "application/json")
			answer, err := http.DefaultClient.Do(request)
			if err != nil {
				t.Error(err)
				return
			}
			defer answer.Body.Close()
			if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
				t.Errorf("%s: %s, %s, %v", user, answer.Status, text, err)
			}
		})
	}
	calls.Wait()
	defer http.DefaultClient.CloseIdleConnections()
	crowd.wantOnce("hi")

	moved := 0
	for i, user := range users {
		want := []string{"selvedge push at front", "  selvedge try at front", "    selvedge receive at " + owner[user]}
		elsewhere := owner[user] != held[user]
		testkit.Eventually(t, 20*time.Second, func() error {
			got := way(collecting.of(trace(i)), caller)
			if len(got) < 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
				return fmt.Errorf("%s, owned by %s and held by %s: %q", user, owner[user], held[user], got)
			}
			asked := false
			for n := 3; n+1 < len(got); n++ {
				asked = asked || got[n] == "      selvedge ask at "+owner[user] && got[n+1] == "        selvedge deliver at "+held[user]
			}
			if asked != elsewhere {
				return fmt.Errorf("%s, owned by %s and held by %s: asked %t, %q", user, owner[user], held[user], asked, got)
			}
			return nil
		}, "the trace of "+user)
		if elsewhere {
			moved++
		}
		for _, s := range collecting.of(trace(i)) {
			if s.name == "selvedge receive" && (s.attributes["selvedge.sessions"] != "1" || s.attributes["messaging.message.id"] == "" || s.attributes["selvedge.member"] != owner[user]) {
				t.Errorf("%s: %v", user, s.attributes)
			}
			for key, value := range s.attributes {
				if strings.Contains(value, "user-") {
					t.Errorf("%s=%s names a user", key, value)
				}
			}
		}
	}
	if moved == 0 {
		t.Error("no user's session was elsewhere")
	}
}
