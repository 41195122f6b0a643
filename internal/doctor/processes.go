package doctor

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/discovery"
	"github.com/selvedge/selvedge/internal/rpc"
)

const (
	defaultAdmin = "127.0.0.1:8081" // of an edge
	askPatience  = 2 * time.Second  // for one process' answer
	askAtOnce    = 32
	skewBad      = 30 * time.Second // identity.ClockSkew: signatures and tickets are refused
	skewWarning  = 2 * time.Second
)

// processes are the members and edges, as far as they have been asked.
type processes struct {
	e          *examination
	edges      []string // URLs
	own        string   // that of the edge which the settings are for, which need not run
	edgeClient *http.Client
	client     *http.Client // of members without TLS
	token      string       // for members

	mu     sync.Mutex
	clocks map[string]time.Duration // by name: how far ahead of this one
}

func (e *examination) processes() (*processes, error) {
	s := e.Settings
	rpcToken, err := s.Token("backend.rpc.token_file", s.Backend.RPC.TokenFile)
	if err != nil {
		return nil, err
	}
	adminToken, err := s.Token("admin.token_file", s.Admin.TokenFile)
	if err != nil {
		return nil, err
	}
	p := &processes{e: e, edges: e.Edges, clocks: make(map[string]time.Duration)}
	config := new(tls.Config)
	if e.forEdge() && s.Admin.Addr != "off" {
		host, port, err := net.SplitHostPort(cmp.Or(s.Admin.Addr, defaultAdmin))
		if err != nil {
			return nil, s.Wrong("admin.addr", err.Error())
		}
		if ip := net.ParseIP(host); host == "" || ip.IsUnspecified() {
			host = "127.0.0.1"
		}
		p.own = "http://" + net.JoinHostPort(host, port)
		if !s.Admin.TLS.Empty() { // whoever runs here trusts the certificate that the edge shows
			p.own = "https" + strings.TrimPrefix(p.own, "http")
			if config.RootCAs, err = x509.SystemCertPool(); err != nil {
				config.RootCAs = x509.NewCertPool()
			}
			if pem, err := os.ReadFile(s.Admin.TLS.Cert); err == nil {
				config.RootCAs.AppendCertsFromPEM(pem)
			}
		}
		if !slices.Contains(p.edges, p.own) {
			p.edges = append(slices.Clip(p.edges), p.own)
		}
	}
	p.token = cmp.Or(e.Token, rpcToken, adminToken)
	p.client = client(p.token, nil)
	p.edgeClient = client(cmp.Or(adminToken, e.Token, rpcToken), config)
	return p, nil
}

// memberClient calls members of a service, by TLS where the settings say so: as who reaches them, or as one of them.
func (p *processes) memberClient(service string) (_ *http.Client, secure bool, err error) {
	s := p.e.Settings
	var files rpc.Credentials
	if t, own := s.Services[service].RPCTLS, s.Backend.RPC.TLS; t != nil {
		files = rpc.Credentials(*t)
	} else if !own.Empty() && cmp.Or(s.Backend.Service, "default") == service {
		files = rpc.Credentials{CA: cmp.Or(own.CA, own.ClientCA), Cert: own.Cert, Key: own.Key, ServerName: own.ServerName}
	} else {
		return p.client, false, nil
	}
	follow, err := files.Follow()
	if err != nil {
		return nil, true, err
	}
	config := follow().Clone()
	config.NextProtos = nil // HTTP/1.1, as with the others
	return client(p.token, config), true, nil
}

// client opens a connection for each call: what is examined includes whether one comes about.
func client(token string, config *tls.Config) *http.Client {
	transport := &http.Transport{DialContext: (&net.Dialer{Timeout: askPatience}).DialContext, TLSClientConfig: config, DisableKeepAlives: true}
	return &http.Client{Transport: bearer{token, transport}, Timeout: askPatience}
}

type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	if b.token != "" {
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+b.token)
	}
	return b.next.RoundTrip(r)
}

func (p *processes) close() {
	p.client.CloseIdleConnections()
	p.edgeClient.CloseIdleConnections()
}

// rings are what the processes of a service said of theirs.
type rings struct {
	service string
	here    string // digest of the ring that the registry makes here
	answers []answer
}

type answer struct {
	name     string
	edge     bool
	own      bool
	critical bool // of a member, which the registry holds dead already
	digest   string
	err      error
}

// ask has each process that knows the service tell its ring.
func (p *processes) ask(ctx context.Context, s *discovery.Snapshot) rings {
	r := rings{service: s.Service, here: s.Ring.Digest()}
	var calls errgroup.Group
	calls.SetLimit(askAtOnce)
	var clients []func() (string, error)
	add := func(a answer, client *http.Client, url string) {
		r.answers = append(r.answers, a)
		clients = append(clients, func() (string, error) { return p.show(ctx, a.name, client, url, s.Service) })
	}
	client, secure, err := p.memberClient(s.Service)
	for _, m := range s.Members {
		switch a := (answer{name: "member " + m.ID + " at " + m.RPCAddr, critical: m.Health == discovery.Critical, err: err}); {
		case m.RPCAddr == "":
		case err != nil:
			r.answers = append(r.answers, a)
			clients = append(clients, func() (string, error) { return "", err })
		default:
			add(a, client, rpc.URL(m.RPCAddr, secure))
		}
	}
	for _, url := range p.edges {
		add(answer{name: "edge " + url, edge: true, own: url == p.own}, p.edgeClient, url)
	}
	for i, call := range clients {
		calls.Go(func() error {
			r.answers[i].digest, r.answers[i].err = call()
			return nil
		})
	}
	_ = calls.Wait() // none fails
	return r
}

// show asks one process for the digest of its ring, and notes its clock.
func (p *processes) show(ctx context.Context, name string, client *http.Client, url, service string) (string, error) {
	request := connect.NewRequest(&pushv1.ShowRequest{})
	request.Header().Set("Selvedge-Service", service) // which edges with several services want to know
	before := p.e.now()
	answer, err := pushv1.NewRingServiceClient(client, url).Show(ctx, request)
	after := p.e.now()
	if err != nil {
		return "", err
	}
	if there, err := http.ParseTime(answer.Header().Get("Date")); err == nil {
		p.mu.Lock()
		p.clocks[name] = skew(there, before, after)
		p.mu.Unlock()
	}
	return answer.Msg.Digest, nil
}

// skew is how far a clock is ahead at least, which said so, in whole seconds, at some time between before and after here.
func skew(there, before, after time.Time) time.Duration {
	if ahead := there.Sub(after); ahead > 0 {
		return ahead
	}
	return min(0, there.Add(time.Second).Sub(before))
}

func (r rings) agree() bool {
	return !slices.ContainsFunc(r.answers, func(a answer) bool { return a.err == nil && a.digest != r.here })
}

// rings says who decides by which ring, and who does not say.
func (e *examination) rings(r rings) {
	const check = "ring"
	by := make(map[string][]string) // names by digest
	for _, a := range r.answers {
		if a.err == nil {
			by[a.digest] = append(by[a.digest], a.name)
			continue
		}
		e.silent(r.service, a)
	}
	switch same := by[r.here]; {
	case len(by) == 0:
		e.found(check, Skipped, fmt.Sprintf("service %s: nobody says which ring it decides by", r.service), "")
	case len(by) == 1 && len(same) > 0:
		e.good(check, fmt.Sprintf("service %s: %d processes decide by ring %s, which the registry makes", r.service, len(same), r.here))
	case len(by) == 1:
		e.found(check, Bad, fmt.Sprintf("service %s: all %d processes decide by ring %s, and the registry makes %s here", r.service, len(r.answers), one(by), r.here),
			"use the services.NAME.ring_secret_file, the registry and the panic_threshold that they use")
	default:
		var text strings.Builder
		fmt.Fprintf(&text, "service %s: %d rings are in force; the registry makes %s", r.service, len(by), r.here)
		for _, digest := range slices.Sorted(maps.Keys(by)) {
			fmt.Fprintf(&text, "; by %s: %s", digest, strings.Join(by[digest], ", "))
		}
		e.found(check, Bad, text.String(),
			"see whether all of them read the same registry, have the same ring_secret_file and can reach Consul (selvedge_discovery_stale, selvedge_ring_info)")
	}
}

func one(by map[string][]string) string {
	for digest := range by {
		return digest
	}
	return ""
}

// silent says why a process told nothing.
func (e *examination) silent(service string, a answer) {
	const check = "ring"
	code := connect.CodeOf(a.err)
	switch {
	case a.own && !slices.Contains(e.Edges, strings.TrimPrefix(a.name, "edge ")) && code == connect.CodeUnavailable:
		e.found(check, Skipped, a.name+" does not answer; is it running?", "name the edges that run: --edge URL of their admin listeners")
	case code == connect.CodeUnauthenticated || code == connect.CodePermissionDenied:
		mend := "give the token of its rpc.token_file: --token-file FILE, or SELVEDGE_TOKEN"
		if a.edge {
			mend = "give the token of its admin.token_file: --token-file FILE, or SELVEDGE_TOKEN"
		}
		e.found(check, Bad, a.name+" refuses the token", mend)
	case a.edge && code == connect.CodeNotFound:
		e.found(check, Skipped, fmt.Sprintf("%s has no route to service %s", a.name, service), "")
	case a.edge && code == connect.CodeUnimplemented:
		e.found(check, Bad, a.name+" is no edge's admin listener: "+text(a.err), "name the address of admin.addr")
	case a.critical:
		e.found(check, Skipped, a.name+" does not answer, which the registry knows", "")
	case a.edge:
		e.found(check, Bad, a.name+" does not answer: "+text(a.err), "see whether it runs, and whether its admin listener (admin.addr) can be reached from here")
	default:
		e.found(check, Bad, a.name+" does not answer: "+text(a.err), "see whether it runs, and whether its RPC port can be reached from here; backend.advertise is the host that it registers")
	}
}

// text is an error without Connect's code.
func text(err error) string {
	var e *connect.Error
	if errors.As(err, &e) {
		return e.Message()
	}
	return err.Error()
}

// report says what was seen of the processes beside their rings.
func (p *processes) report() {
	const check = "clock"
	worst := time.Duration(0)
	for _, name := range slices.Sorted(maps.Keys(p.clocks)) {
		ahead := p.clocks[name]
		worst = max(worst, ahead.Abs())
		level := Good
		switch {
		case ahead.Abs() >= skewBad:
			level = Bad
		case ahead.Abs() >= skewWarning:
			level = Warning
		}
		if level != Good {
			way := "ahead of"
			if ahead < 0 {
				way = "behind"
			}
			p.e.found(check, level, fmt.Sprintf("the clock of %s is %v %s this one's; signatures and tickets may be %v off", name, ahead.Abs().Round(time.Second/10), way, skewBad),
				"see to NTP on both hosts: timedatectl")
		}
	}
	switch {
	case len(p.clocks) == 0:
		p.e.found(check, Skipped, "nobody answered who could tell the time", "")
	case worst < skewWarning:
		p.e.good(check, fmt.Sprintf("the clocks of %d processes agree with this one to %v", len(p.clocks), skewWarning))
	}
	for _, url := range p.edges {
		p.descriptors(url)
	}
}

// descriptors says how much of a running edge's limit is used, from its metrics; nothing where it does not tell.
func (p *processes) descriptors(url string) {
	ctx, cancel := context.WithTimeout(context.Background(), askPatience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/metrics", nil)
	if err != nil {
		return
	}
	answer, err := p.edgeClient.Do(r)
	if err != nil {
		return // which has been said
	}
	defer answer.Body.Close()
	figures := make(map[string]float64)
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		if name == "process_open_fds" || name == "process_max_fds" {
			figures[name], _ = strconv.ParseFloat(value, 64) // 0: as if it were not there
		}
	}
	open, most := figures["process_open_fds"], figures["process_max_fds"]
	if most == 0 {
		return
	}
	finding := fmt.Sprintf("edge %s has %.0f of %.0f files open", url, open, most)
	if open > 0.8*most {
		p.e.found("descriptors", Bad, finding, "raise LimitNOFILE of its unit, or add an edge")
		return
	}
	p.e.good("descriptors", finding)
}
