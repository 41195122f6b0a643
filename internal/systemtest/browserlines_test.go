package systemtest

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"github.com/selvedge/selvedge/internal/testkit"
)

// linesPage is a page of another origin than the edge's, which it loads selvedge.js from as a classic script. watch is what lines.mjs has.
const linesPage = `<!doctype html><title>lines</title><link rel="icon" href="data:,"><script src="%[1]s/.well-known/selvedge/client.js"></script><script>
	window.events = [];
	function watch(user, mode) {
		const log = (event, fields) => events.push({ at: Date.now(), line: user + ' ' + mode, event, ...fields });
		const line = new Selvedge('%[1]s/ws?hello=1&user=' + user + '&device=' + mode, {
			direct: mode === 'direct',
			WebSocket: class extends WebSocket {
				constructor(url, ...rest) { log('dial', { url: url.host }); super(url, ...rest); }
			},
		});
		for (const state of ['connecting', 'open', 'moved', 'waiting', 'closed']) {
			line.addEventListener(state, ({ code, reason, until }) => log(state, { code, reason, wait: until && until - Date.now() }));
		}
		line.addEventListener('message', ({ data }) => {
			const hello = data.startsWith('{"hello"') && JSON.parse(data).hello;
			if (hello) log('hello', { backend: hello.backend }); else log('message', { data });
		});
	}
	let last = Date.now();
	setInterval(() => {
		const late = Date.now() - last - 20;
		last += 20 + late;
		if (late > 100) events.push({ at: last, line: 'page', event: 'late', wait: late });
	}, 20);
	for (let i = 0; i < %[2]d; i++) for (const mode of ['edge', 'direct']) watch('page-' + i, mode);
	import('%[1]s/.well-known/selvedge/client.js').then(() => { window.isModule = true; });
</script>`

// linesSite serves it.
type linesSite struct {
	*httptest.Server
	t    *testing.T
	edge string // set before the page is asked for
}

func newLinesSite(t *testing.T, users int) *linesSite {
	site := &linesSite{t: t}
	site.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, linesPage, site.edge, users) }))
	t.Cleanup(site.Close)
	return site
}

// open opens the page in Chromium, with lines by way of an edge.
func (site *linesSite) open(edge string) *tab {
	site.t.Helper()
	site.edge = edge
	tb := newTab(site.t, startBrowser(site.t), site.URL)
	tb.wait("it to be loaded as a module, too", `window.isModule`)
	return tb
}

// The chat page does without an edge, behind another proxy that says who the user is.
func TestChatPageWithoutAnEdge(t *testing.T) {
	addr, rpc := testkit.FreePort(t), testkit.FreePort(t)
	p := start(t, "b1", "backend", "--id", "b1", "--listen", fmt.Sprint("127.0.0.1:", addr), "--rpc", fmt.Sprint("127.0.0.1:", rpc),
		"--backends", fmt.Sprintf("b1=127.0.0.1:%d/%d", addr, rpc))
	p.waitLog("serving")
	to := &url.URL{Scheme: "http", Host: fmt.Sprint("127.0.0.1:", addr)}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		if user := r.In.URL.Query().Get("user"); user != "" {
			r.Out.Header.Set("X-Selvedge-User", url.QueryEscape(user))
		}
	}})
	t.Cleanup(proxy.Close)
	tb := openTab(t, startBrowser(t), &devServer{URL: proxy.URL}, "alice")
	p.kill()
	tb.wait("it to say that it is cut off", `document.querySelector('#state').dataset.state === 'waiting' &&
		document.querySelector('#state').textContent.includes('Reconnecting')`)
}
