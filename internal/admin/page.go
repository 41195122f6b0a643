package admin

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"time"
)

//go:embed web
var web embed.FS

// contentPolicy lets the page load its own three files and call its own listener, and nothing else.
const contentPolicy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const (
	frameEvery   = time.Second
	frameTimeout = 10 * time.Second // for a page to take one; then it is given up
	pagesAtOnce  = 32               // that are told; more get 503

	// bytesPerSecond is the most that a page is told over time, bytesAtFirst what it may be told at once. After a large frame the next comes
	// later.
	bytesPerSecond = 4 << 10
	bytesAtFirst   = 20 << 10
)

// page serves the operator's page. Its files hold nothing but the page itself and may be seen by anyone; what they show comes from below
// /page/, which asks for the token.
type page struct {
	source Source
	places chan struct{} // one for each page that is told
}

func newPage(source Source) *page {
	return &page{source: source, places: make(chan struct{}, pagesAtOnce)}
}

// files routes the page's files.
func (p *page) files(mux *http.ServeMux) {
	entries, err := fs.ReadDir(web, "web")
	if err != nil {
		panic(err) // it is embedded
	}
	for _, entry := range entries {
		text, err := fs.ReadFile(web, "web/"+entry.Name())
		if err != nil {
			panic(err)
		}
		at := "GET /" + entry.Name()
		if entry.Name() == "index.html" {
			at = "GET /{$}"
		}
		mux.Handle(at, file(entry.Name(), text))
	}
}

// file serves one of the page's files; browsers ask each time whether it is another one, for a new release may have a new one.
func file(name string, text []byte) http.Handler {
	sum := sha256.Sum256(text)
	tag := `"` + hex.EncodeToString(sum[:8]) + `"`
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Type", mime.TypeByExtension(path.Ext(name)))
		h.Set("Content-Security-Policy", contentPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(text) // whoever has gone does not need it
	})
}

// data routes what the page shows.
func (p *page) data(mux *http.ServeMux) {
	mux.HandleFunc("GET /page/events", p.events)
	mux.HandleFunc("GET /page/user", p.user)
}

// events tells a page how a service is, as server-sent events, until it goes away. Each event is a [frame] in JSON.
func (p *page) events(w http.ResponseWriter, r *http.Request) {
	service, ok := p.service(w, r)
	if !ok {
		return
	}
	select {
	case p.places <- struct{}{}:
		defer func() { <-p.places }()
	default:
		w.Header().Set("Retry-After", "10")
		http.Error(w, fmt.Sprintf("%d pages are open already; close one", pagesAtOnce), http.StatusServiceUnavailable)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	p.source.Follow(ctx, service)
	stream := http.NewResponseController(w)
	teller := newTeller()
	var budget budget
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		now := time.Now()
		picture, there := p.source.Picture(service)
		if !there {
			return // no route names it any more; the page asks anew, and hears which there are
		}
		text, err := json.Marshal(teller.tell(picture, p.services(now), now))
		if err != nil {
			return // cannot be: it is made of plain values
		}
		_ = stream.SetWriteDeadline(now.Add(frameTimeout)) // where that is not possible, the connection's end has to do
		if _, err := fmt.Fprintf(w, "data: %s\n\n", text); err != nil || stream.Flush() != nil {
			return
		}
		pause.Reset(max(frameEvery, budget.spend(now, len(text))))
	}
}

// budget is a bucket of bytesAtFirst that fills up by bytesPerSecond. A frame may take more than it holds, and then the next has to wait.
type budget struct {
	paid time.Time // by when what has been sent so far will have been paid for
}

// spend takes n bytes, and returns how long nothing more may be sent.
func (b *budget) spend(now time.Time, n int) time.Duration {
	if full := now.Add(-bytesAtFirst * time.Second / bytesPerSecond); b.paid.Before(full) {
		b.paid = full
	}
	b.paid = b.paid.Add(time.Duration(n) * time.Second / bytesPerSecond)
	return b.paid.Sub(now)
}

// services lists the services with what the registry makes of each.
func (p *page) services(now time.Time) []serviceRow {
	var rows []serviceRow
	for _, name := range p.source.Services() {
		if picture, there := p.source.Picture(name); there {
			rows = append(rows, serviceRow{name, judge(picture, now).Level})
		}
	}
	return rows
}

// whereabouts is what the ring says of a user.
type whereabouts struct {
	User       string   `json:"user"`
	Hash       string   `json:"hash"`
	Digest     string   `json:"digest"`
	Successors []string `json:"successors"` // the owner first
}

const successorsShown = 8

// user tells what the ring says of a user; the sessions are the push service's to tell.
func (p *page) user(w http.ResponseWriter, r *http.Request) {
	service, ok := p.service(w, r)
	if !ok {
		return
	}
	user := r.URL.Query().Get("user")
	if user == "" || len(user) > 256 {
		http.Error(w, "name a user of 1 to 256 bytes: ?user=alice", http.StatusBadRequest)
		return
	}
	picture, there := p.source.Picture(service)
	if !there {
		http.Error(w, "no such service", http.StatusNotFound)
		return
	}
	ring := picture.Snapshot.Ring
	out := whereabouts{User: user, Hash: fmt.Sprintf("%016x", ring.Hash(user)), Digest: ring.Digest(), Successors: []string{}}
	for id := range ring.Successors(user) {
		if out.Successors = append(out.Successors, id); len(out.Successors) == successorsShown {
			break
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(out) // whoever has gone does not need it
}

// service is the one that a request names, or the first.
func (p *page) service(w http.ResponseWriter, r *http.Request) (name string, ok bool) {
	names := p.source.Services()
	if name = r.URL.Query().Get("service"); name == "" && len(names) > 0 {
		name = names[0]
	}
	if !slices.Contains(names, name) {
		http.Error(w, fmt.Sprintf("service %q is not known here; there are %q", name, names), http.StatusNotFound)
		return "", false
	}
	return name, true
}
