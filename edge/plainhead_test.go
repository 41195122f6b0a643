package edge

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// heads are requests by what the reactor is to do with them.
func heads() map[string]struct {
	text string
	is   reading
} {
	type head = struct {
		text string
		is   reading
	}
	good := upgradeTo("/ws?user=alice")
	change := func(from, to string) string {
		if !strings.Contains(good, from) {
			panic(from)
		}
		return strings.Replace(good, from, to, 1)
	}
	return map[string]head{
		"plain":                  {good, plain},
		"with bytes after it":    {good + "\x81\x80frame\r\n\r\n", plain},
		"more fields":            {upgradeTo("/ws?user=alice", "Cookie: a=\"b\"; c={d}", "X_Odd-Name:  two  spaces  ", "X-Empty:"), plain},
		"escaped":                {upgradeTo("/ws/%C3%A9/../x;y?user=a%20b&z=[1]"), plain},
		"a bad escape":           {upgradeTo("/ws/%zz"), plain}, // net/http says so
		"plain HTTP":             {"GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", plain},
		"names in another case":  {change("Host:", "hOsT:"), plain},
		"half":                   {good[:len(good)-2], partial},
		"half a line":            {good[:len(good)-9], partial},
		"nothing":                {"", partial},
		"half a method":          {"GE", partial},
		"another method":         {change("GET", "POST"), odd},
		"a method in lower case": {change("GET", "get"), odd},
		"HTTP/1.0":               {change("HTTP/1.1", "HTTP/1.0"), odd},
		"HTTP/1.2":               {change("HTTP/1.1", "HTTP/1.2"), odd},
		"two spaces":             {change("GET /", "GET  /"), odd},
		"space in the target":    {change("/ws?", "/ws ?"), odd},
		"whole URL":              {change("GET /", "GET http://edge.test/"), odd},
		"two slashes":            {change("GET /", "GET //"), odd},
		"star":                   {change("/ws?user=alice", "*"), odd},
		"fragment":               {change("alice", "alice#x"), odd},
		"high byte in target":    {change("alice", "al\xc3\xa9"), odd},
		"quote in target":        {change("alice", `al"ice`), odd},
		"bare LF":                {change("HTTP/1.1\r\n", "HTTP/1.1\n"), odd},
		"bare LF in a field":     {change("Upgrade\r\n", "Upgrade\n"), odd},
		"bare CR":                {change("Upgrade: websocket\r\n", "Upgrade: web\rsocket\r\n"), odd},
		"CR CR LF":               {change("Upgrade: websocket\r\n", "Upgrade: websocket\r\r\n"), odd},
		"empty line first":       {"\r\n" + good, odd},
		"folded":                 {upgradeTo("/ws?user=alice", "X-Long: a", " b"), odd},
		"folded by tab":          {upgradeTo("/ws?user=alice", "X-Long: a", "\tb"), odd},
		"tab in a value":         {upgradeTo("/ws?user=alice", "X-Tab: a\tb"), odd},
		"NUL in a value":         {upgradeTo("/ws?user=alice", "X-Nul: a\x00b"), odd},
		"high byte in a value":   {upgradeTo("/ws?user=alice", "X-High: a\xe9b"), odd},
		"space before colon":     {upgradeTo("/ws?user=alice", "X-Odd : a"), odd},
		"no name":                {upgradeTo("/ws?user=alice", ": a"), odd},
		"no colon":               {upgradeTo("/ws?user=alice", "X-Odd"), odd},
		"odd name":               {upgradeTo("/ws?user=alice", "X(Odd): a"), odd},
		"no Host":                {change("Host", "X-Host"), odd},
		"two Hosts":              {upgradeTo("/ws?user=alice", "host: edge.test"), odd},
		"empty Host":             {change("edge.test", ""), odd},
		"odd Host":               {change("edge.test", "a,b"), odd},
		"user in Host":           {change("edge.test", "a@b"), odd},
		"Content-Length":         {upgradeTo("/ws?user=alice", "content-length: 0"), odd},
		"Transfer-Encoding":      {upgradeTo("/ws?user=alice", "Transfer-Encoding: chunked"), odd},
		"Expect":                 {upgradeTo("/ws?user=alice", "Expect: 100-continue"), odd},
		"Trailer":                {upgradeTo("/ws?user=alice", "Trailer: X-A"), odd},
		"TLS":                    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", odd},
	}
}

func TestPlainRequest(t *testing.T) {
	for name, c := range heads() {
		if size, is := plainRequest([]byte(c.text)); is != c.is || is == plain && size != strings.Index(c.text, "\r\n\r\n")+4 {
			t.Errorf("%s: %d, %d bytes; want %d", name, is, size, c.is)
		}
	}
}

func TestPlainSwitch(t *testing.T) {
	good := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	for text, want := range map[string]reading{
		good: plain, good + "\n\n": plain, good[:10]: partial, good[:len(good)-2]: partial, "": partial,
		"HTTP/1.0" + good[8:]: odd, "HTTP/1.1 1010 x\r\n\r\n": odd, "HTTP/1.1 200 OK\r\n\r\n": odd, "SSH": odd,
		strings.ReplaceAll(good, "\r\n", "\n"): odd, strings.Replace(good, "socket\r\n\r\n", "socket\r\n\n", 1): odd,
	} {
		if size, is := plainSwitch([]byte(text)); is != want || is == plain && size != len(good) {
			t.Errorf("%q: %d, %d bytes; want %d", text, is, size, want)
		}
	}
}

// served is what a server of net/http makes of the first request in text; nil: it refuses it.
func served(text []byte) (got *http.Request) {
	near, far := net.Pipe()
	conns := make(chan net.Conn, 1)
	conns <- near
	done := make(chan struct{})
	srv := &http.Server{MaxHeaderBytes: 1 << 20, ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got == nil {
			got = r
		}
		w.Header().Set("Connection", "close")
	}), ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed {
			close(done)
		}
	}}
	go func() { _ = srv.Serve(&oneConn{conns: conns, done: done}) }()
	go func() {
		_, _ = far.Write(text)
		_, _ = far.Write([]byte("\r\n\r\n")) // for what is not whole
	}()
	go func() { _, _ = io.Copy(io.Discard, far) }()
	select {
	case <-done:
	case <-time.After(patience):
		panic(fmt.Sprintf("no end: %q", text))
	}
	_ = far.Close()
	_ = srv.Close()
	return got
}

// oneConn is a listener of one connection.
type oneConn struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}
func (l *oneConn) Close() error   { return nil }
func (l *oneConn) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzPlainRequest holds what the reactor accepts against net/http: a server of its accepts it too, reads the same, and reads as far.
func FuzzPlainRequest(f *testing.F) {
	for _, c := range heads() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		size, is := plainRequest(text)
		for cut := range text { // however it comes in pieces, nothing is decided too early
			if n, early := plainRequest(text[:cut]); is == plain && (cut < size && early != partial || cut >= size && (early != plain || n != size)) {
				t.Fatalf("%q: %d after %d bytes, plain with %d", text, early, cut, size)
			}
		}
		if is != plain {
			return
		}
		ours, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text[:size])))
		theirs := served(text[:size])
		if err != nil {
			if theirs != nil {
				t.Fatalf("%q: net/http reads it, the reactor hands it over: %v", text, err)
			}
			return
		}
		if theirs == nil {
			t.Fatalf("%q: net/http refuses it, the reactor does not", text)
		}
		for _, what := range [][2]any{
			{ours.Method, theirs.Method}, {ours.Proto, theirs.Proto}, {ours.RequestURI, theirs.RequestURI}, {ours.URL, theirs.URL},
			{ours.Host, theirs.Host}, {ours.Header, theirs.Header}, {ours.ContentLength, theirs.ContentLength},
			{ours.TransferEncoding, theirs.TransferEncoding}, {ours.Trailer, theirs.Trailer}, {ours.Close, theirs.Close},
			{ours.Method, http.MethodGet}, {ours.ContentLength, int64(0)},
		} {
			if !reflect.DeepEqual(what[0], what[1]) {
				t.Fatalf("%q: the reactor reads %v, net/http %v", text, what[0], what[1])
			}
		}
	})
}
