package httphead

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

const patience = 10 * time.Second

func upgradeTo(target string, fields ...string) string {
	return "GET " + target + " HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n"
}

// heads are requests by what the reactor is to do with them.
func heads() map[string]struct {
	text string
	is   Reading
} {
	type head = struct {
		text string
		is   Reading
	}
	good := upgradeTo("/ws?user=alice")
	change := func(from, to string) string {
		if !strings.Contains(good, from) {
			panic(from)
		}
		return strings.Replace(good, from, to, 1)
	}
	return map[string]head{
		"plain":                  {good, Plain},
		"with bytes after it":    {good + "\x81\x80frame\r\n\r\n", Plain},
		"more fields":            {upgradeTo("/ws?user=alice", "Cookie: a=\"b\"; c={d}", "X_Odd-Name:  two  spaces  ", "X-Empty:"), Plain},
		"escaped":                {upgradeTo("/ws/%C3%A9/../x;y?user=a%20b&z=[1]"), Plain},
		"a bad escape":           {upgradeTo("/ws/%zz"), Plain}, // net/http says so
		"plain HTTP":             {"GET / HTTP/1.1\r\nHost: a:80\r\n\r\n", Plain},
		"names in another case":  {change("Host:", "hOsT:"), Plain},
		"half":                   {good[:len(good)-2], Partial},
		"half a line":            {good[:len(good)-9], Partial},
		"nothing":                {"", Partial},
		"half a method":          {"GE", Partial},
		"another method":         {change("GET", "POST"), Odd},
		"a method in lower case": {change("GET", "get"), Odd},
		"HTTP/1.0":               {change("HTTP/1.1", "HTTP/1.0"), Odd},
		"HTTP/1.2":               {change("HTTP/1.1", "HTTP/1.2"), Odd},
		"two spaces":             {change("GET /", "GET  /"), Odd},
		"space in the target":    {change("/ws?", "/ws ?"), Odd},
		"whole URL":              {change("GET /", "GET http://edge.test/"), Odd},
		"two slashes":            {change("GET /", "GET //"), Odd},
		"star":                   {change("/ws?user=alice", "*"), Odd},
		"fragment":               {change("alice", "alice#x"), Odd},
		"high byte in target":    {change("alice", "al\xc3\xa9"), Odd},
		"quote in target":        {change("alice", `al"ice`), Odd},
		"bare LF":                {change("HTTP/1.1\r\n", "HTTP/1.1\n"), Odd},
		"bare LF in a field":     {change("Upgrade\r\n", "Upgrade\n"), Odd},
		"bare CR":                {change("Upgrade: websocket\r\n", "Upgrade: web\rsocket\r\n"), Odd},
		"CR CR LF":               {change("Upgrade: websocket\r\n", "Upgrade: websocket\r\r\n"), Odd},
		"empty line first":       {"\r\n" + good, Odd},
		"folded":                 {upgradeTo("/ws?user=alice", "X-Long: a", " b"), Odd},
		"folded by tab":          {upgradeTo("/ws?user=alice", "X-Long: a", "\tb"), Odd},
		"tab in a value":         {upgradeTo("/ws?user=alice", "X-Tab: a\tb"), Odd},
		"NUL in a value":         {upgradeTo("/ws?user=alice", "X-Nul: a\x00b"), Odd},
		"high byte in a value":   {upgradeTo("/ws?user=alice", "X-High: a\xe9b"), Odd},
		"space before colon":     {upgradeTo("/ws?user=alice", "X-Odd : a"), Odd},
		"no name":                {upgradeTo("/ws?user=alice", ": a"), Odd},
		"no colon":               {upgradeTo("/ws?user=alice", "X-Odd"), Odd},
		"odd name":               {upgradeTo("/ws?user=alice", "X(Odd): a"), Odd},
		"no Host":                {change("Host", "X-Host"), Odd},
		"two Hosts":              {upgradeTo("/ws?user=alice", "host: edge.test"), Odd},
		"empty Host":             {change("edge.test", ""), Odd},
		"odd Host":               {change("edge.test", "a,b"), Odd},
		"user in Host":           {change("edge.test", "a@b"), Odd},
		"Content-Length":         {upgradeTo("/ws?user=alice", "content-length: 0"), Odd},
		"Transfer-Encoding":      {upgradeTo("/ws?user=alice", "Transfer-Encoding: chunked"), Odd},
		"Expect":                 {upgradeTo("/ws?user=alice", "Expect: 100-continue"), Odd},
		"Trailer":                {upgradeTo("/ws?user=alice", "Trailer: X-A"), Odd},
		"TLS":                    {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", Odd},
	}
}

func TestRequest(t *testing.T) {
	for name, c := range heads() {
		if size, is := Request([]byte(c.text)); is != c.is || is == Plain && size != strings.Index(c.text, "\r\n\r\n")+4 {
			t.Errorf("%s: %d, %d bytes; want %d", name, is, size, c.is)
		}
	}
}

func TestSwitch(t *testing.T) {
	good := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
	for text, want := range map[string]Reading{
		good: Plain, good + "\n\n": Plain, good[:10]: Partial, good[:len(good)-2]: Partial, "": Partial,
		"HTTP/1.0" + good[8:]: Odd, "HTTP/1.1 1010 x\r\n\r\n": Odd, "HTTP/1.1 200 OK\r\n\r\n": Odd, "SSH": Odd,
		strings.ReplaceAll(good, "\r\n", "\n"): Odd, strings.Replace(good, "socket\r\n\r\n", "socket\r\n\n", 1): Odd,
	} {
		if size, is := Switch([]byte(text)); is != want || is == Plain && size != len(good) {
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

// FuzzRequest holds what the reactor accepts against net/http: a server of its accepts it too, reads the same, and reads as far.
func FuzzRequest(f *testing.F) {
	for _, c := range heads() {
		f.Add([]byte(c.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		size, is := Request(text)
		for cut := range text { // however it comes in pieces, nothing is decided too early
			if n, early := Request(text[:cut]); is == Plain && (cut < size && early != Partial || cut >= size && (early != Plain || n != size)) {
				t.Fatalf("%q: %d after %d bytes, plain with %d", text, early, cut, size)
			}
		}
		if is != Plain {
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
