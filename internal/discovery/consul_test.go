package discovery

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

// newCatalogue returns a watch's state and a function that returns the last report, and how many there were.
func newCatalogue(t *testing.T) (*catalogue, func() ([]Member, int)) {
	t.Helper()
	var last []Member
	var n int
	w := &catalogue{judge: judge{log: testLog(t), counters: new(counters), update: func(m []Member) { last, n = m, n+1 }}}
	return w, func() ([]Member, int) { return last, n }
}

func answered(index uint64) *api.QueryMeta {
	return &api.QueryMeta{LastIndex: index, KnownLeader: true}
}

func ids(members []Member) []string {
	var ids []string
	for _, m := range members {
		if m.InRing() {
			ids = append(ids, m.ID)
		}
	}
	return ids
}

func TestCatalogueInOrdinaryTimes(t *testing.T) {
	w, last := newCatalogue(t)
	now := time.Unix(1000, 0)
	w.take(now, nil, answered(1))
	if got, n := last(); n != 1 || len(got) != 0 {
		t.Fatalf("an empty catalogue is reported, too: %d, %s", n, show(got))
	}
	w.take(now, []*api.ServiceEntry{entry("a"), entry("b")}, answered(2))
	w.take(now, []*api.ServiceEntry{entry("b"), entry("a")}, answered(3))
	if got, n := last(); n != 2 || !slices.Equal(ids(got), []string{"a", "b"}) {
		t.Fatalf("%d reports, %s", n, show(got))
	}
	if w.wait(now) != consulWait || w.index != 3 {
		t.Fatalf("waits %v for index %d", w.wait(now), w.index)
	}
	w.take(now, []*api.ServiceEntry{entry("b")}, answered(4))
	if got, n := last(); n != 3 || !slices.Equal(ids(got), []string{"b"}) {
		t.Fatalf("a deregistration is not believed at once: %s", show(got))
	}
}

// TestCatalogueAfterAnOutage goes through both ways in which a catalogue comes back without its members.
func TestCatalogueAfterAnOutage(t *testing.T) {
	all := []*api.ServiceEntry{entry("a"), entry("b")}
	outages := map[string]func(w *catalogue, now time.Time) time.Time{
		"unreachable": func(w *catalogue, now time.Time) time.Time {
			w.lost(now, errors.New("connection refused"))
			w.lost(now.Add(time.Second), errors.New("connection refused"))
			return now.Add(time.Minute)
		},
		"index backwards": func(w *catalogue, now time.Time) time.Time { return now },
	}
	for name, outage := range outages {
		t.Run(name, func(t *testing.T) {
			w, last := newCatalogue(t)
			now := time.Unix(1000, 0)
			w.take(now, all, answered(50))
			now = outage(w, now)

			w.take(now, nil, answered(7))
			if got, n := last(); n != 1 {
				t.Fatalf("an empty catalogue was believed: %s", show(got))
			}
			if wait := w.wait(now); wait != recoveryHold {
				t.Fatalf("the next query waits %v, beyond the hold's end", wait)
			}
			w.take(now.Add(time.Second), []*api.ServiceEntry{entry("a", status("critical")), entry("c")}, answered(8))
			if got, _ := last(); !slices.Equal(ids(got), []string{"a", "b", "c"}) {
				t.Fatalf("the newcomer counts, the others stay: %s", show(got))
			}
			w.take(now.Add(2*time.Second), []*api.ServiceEntry{entry("a", meta(metaState, "draining")), entry("c")}, answered(9))
			if got, _ := last(); !slices.Equal(ids(got), []string{"b", "c"}) {
				t.Fatalf("draining counts at once: %s", show(got))
			}
			// The hold's end: the same answer, the same index.
			w.take(now.Add(recoveryHold), []*api.ServiceEntry{entry("a", meta(metaState, "draining")), entry("c")}, answered(9))
			if got, _ := last(); !slices.Equal(ids(got), []string{"c"}) {
				t.Fatalf("after the hold the catalogue is believed: %s", show(got))
			}
			if w.wait(now.Add(recoveryHold)) != consulWait {
				t.Fatal("the hold did not end")
			}
			w.take(now.Add(recoveryHold), nil, answered(10))
			if got, _ := last(); len(ids(got)) != 0 {
				t.Fatalf("ordinary times again: %s", show(got))
			}
		})
	}
}

func TestCatalogueLostTwice(t *testing.T) {
	w, last := newCatalogue(t)
	now := time.Unix(1000, 0)
	w.take(now, []*api.ServiceEntry{entry("a")}, answered(50))
	w.lost(now, errors.New("away"))
	w.take(now, nil, answered(1))
	w.lost(now, errors.New("away again"))
	now = now.Add(recoveryHold)
	w.take(now, nil, answered(2))
	if got, n := last(); n != 1 {
		t.Fatalf("a second outage within the hold: %s", show(got))
	}
}

func TestCatalogueTrust(t *testing.T) {
	some := []*api.ServiceEntry{entry("a")}
	tests := map[string]struct {
		reported bool
		entries  []*api.ServiceEntry
		meta     api.QueryMeta
		trusted  bool
	}{
		"an answer":                         {true, some, api.QueryMeta{KnownLeader: true}, true},
		"empty":                             {true, nil, api.QueryMeta{KnownLeader: true}, true},
		"no leader, better than nothing":    {false, some, api.QueryMeta{}, true},
		"no leader and nothing":             {false, nil, api.QueryMeta{}, false},
		"no leader, worse than what we had": {true, some, api.QueryMeta{}, false},
		"streams do not tell of a leader":   {true, nil, api.QueryMeta{QueryBackend: "streaming"}, true},
		"a token without rights":            {true, nil, api.QueryMeta{KnownLeader: true, ResultsFilteredByACLs: true}, false},
		"a token with some rights":          {true, some, api.QueryMeta{KnownLeader: true, ResultsFilteredByACLs: true}, true},
	}
	for name, test := range tests {
		w, _ := newCatalogue(t)
		w.reported = test.reported
		if err := w.trust(test.entries, &test.meta); (err == nil) != test.trusted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// agent is an HTTP server that answers health queries as the test says.
type agent struct {
	*httptest.Server
	answers chan answer

	mu      sync.Mutex
	queries []url.Values // with the path and the token added
}

type answer struct {
	status  int
	index   uint64
	entries []*api.ServiceEntry
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{answers: make(chan answer)}
	a.Server = httptest.NewServer(a)
	t.Cleanup(a.Close)
	return a
}

func (a *agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	q := r.URL.Query()
	q.Set("path", r.URL.Path)
	q.Set("sent-token", r.Header.Get("X-Consul-Token"))
	a.queries = append(a.queries, q)
	a.mu.Unlock()
	select {
	case next := <-a.answers:
		w.Header().Set("X-Consul-Index", strconv.FormatUint(next.index, 10))
		w.Header().Set("X-Consul-KnownLeader", "true")
		w.Header().Set("X-Consul-LastContact", "0")
		w.WriteHeader(next.status)
		_ = json.NewEncoder(w).Encode(next.entries) // the client may have gone at the test's end
	case <-r.Context().Done():
	}
}

// query returns the n-th query, waiting for it.
func (a *agent) query(t *testing.T, n int) url.Values {
	t.Helper()
	var q url.Values
	testkit.Eventually(t, soon, func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if len(a.queries) <= n {
			return false
		}
		q = a.queries[n]
		return true
	}, "query "+strconv.Itoa(n))
	return q
}

func TestConsulQueries(t *testing.T) {
	a := newAgent(t)
	src, err := NewConsul(ConsulConfig{Addr: a.URL, Token: "secret", Datacenter: "dc7", Tag: "blue", Stale: true}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	w := watch(t, src, "chat")
	q := a.query(t, 0)
	for key, want := range map[string]string{"path": "/v1/health/service/chat", "dc": "dc7", "tag": "blue", "index": "", "passing": "", "sent-token": "secret"} {
		if q.Get(key) != want {
			t.Errorf("%s is %q, want %q", key, q.Get(key), want)
		}
	}
	if !q.Has("stale") {
		t.Error("the query is not stale")
	}
	both := []Member{memberOfEntry(t, entry("a")), memberOfEntry(t, entry("b"))}
	a.answers <- answer{200, 40, []*api.ServiceEntry{entry("a"), entry("b")}}
	w.await(t, both, "the first answer")
	if q := a.query(t, 1); q.Get("index") != "40" || q.Get("wait") == "" {
		t.Errorf("the second query does not wait for news: %v", q)
	}

	a.answers <- answer{500, 0, nil}
	if q := a.query(t, 2); q.Has("index") {
		t.Errorf("the query after an error waits: %v", q)
	}
	a.answers <- answer{200, 3, nil}
	q = a.query(t, 3)
	if wait, err := time.ParseDuration(q.Get("wait")); q.Get("index") != "3" || err != nil || wait > recoveryHold {
		t.Errorf("the query after an outage waits beyond the hold: %v", q)
	}
	a.answers <- answer{200, 2, []*api.ServiceEntry{entry("a"), entry("b")}}
	if q := a.query(t, 4); q.Has("index") {
		t.Errorf("the index went backwards and was not reset: %v", q)
	}
	if got, n := w.last(); n != 1 {
		t.Errorf("reported %d times: %s", n, show(got))
	}
}

func memberOfEntry(t *testing.T, e *api.ServiceEntry) Member {
	t.Helper()
	m, problems := choose([]*api.ServiceEntry{e})
	if len(m) != 1 || len(problems) != 0 {
		t.Fatal(m, problems)
	}
	return m[0]
}

// TestConsulEnvironment: what the config leaves empty is taken from Consul's own variables.
func TestConsulEnvironment(t *testing.T) {
	a := newAgent(t)
	t.Setenv("CONSUL_HTTP_ADDR", a.URL)
	t.Setenv("CONSUL_HTTP_TOKEN", "from the environment")
	src, err := NewConsul(ConsulConfig{}, testLog(t))
	if err != nil {
		t.Fatal(err)
	}
	watch(t, src, "chat")
	if token := a.query(t, 0).Get("sent-token"); token != "from the environment" {
		t.Errorf("token %q", token)
	}
}

func TestBackoff(t *testing.T) {
	var b backoff
	span := backoffFirst
	for range 20 {
		d := b.next()
		if d < span/2 || d > span {
			t.Fatalf("%v is not within %v and %v", d, span/2, span)
		}
		span = min(2*span, backoffMost)
	}
	b = 0
	if d := b.next(); d > backoffFirst {
		t.Fatalf("after a success: %v", d)
	}
}
