package edge

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// What HTTP asks of a proxy, request by request as it stands on the wire.
func TestSemantics(t *testing.T) {
	e := start(t, Config{Membership: members(serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/204":
			w.WriteHeader(http.StatusNoContent)
		case "/304":
			w.Header().Set("Etag", `"x"`)
			w.WriteHeader(http.StatusNotModified)
		default:
			body, _ := io.ReadAll(r.Body)
			_, _ = io.WriteString(w, r.Method+" "+r.RequestURI+" "+r.Host+" "+string(body))
		}
	})), Routes: []Route{{Key: "none"}}})
	for _, c := range []struct {
		request string // without its last empty line and body
		body    string
		status  int
		want    string // body, where the answer is the backend's
	}{
		{"HEAD /x HTTP/1.1\nHost: h", "", 200, ""},
		{"GET /204 HTTP/1.1\nHost: h", "", 204, ""},
		{"GET /304 HTTP/1.1\nHost: h", "", 304, ""},
		{"GET http://other.test/x?y HTTP/1.1\nHost: h", "", 200, "GET /x?y other.test "},
		{"BREW /x HTTP/1.1\nHost: h", "", 200, "BREW /x h "},
		{"OPTIONS /x HTTP/1.1\nHost: h", "", 200, "OPTIONS /x h "},
		{"POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: chunked", "1;ext=1\r\na\r\n2\r\nbc\r\n0\r\n\r\n", 200, "POST /x h abc"},
		{"POST /x HTTP/1.1\nHost: h\nContent-Length: 3\nContent-Length: 3", "abc", 200, "POST /x h abc"},
		{"GET /x HTTP/1.0", "", 200, "GET /x localhost "},

		{"OPTIONS * HTTP/1.1\nHost: h", "", 400, ""},
		{"CONNECT h:443 HTTP/1.1\nHost: h", "", 400, ""},
		{"PRI * HTTP/2.0", "", 400, ""},
		{"GET /x HTTP/1.1", "", 400, ""},
		{"GET /x HTTP/1.1\nHost: h\nHost: h", "", 400, ""},
		{"GET /x HTTP/1.1\nHost: h\n folded: 1", "", 400, ""},
		{"GET /x HTTP/1.1\nHost: h\nA : 1", "", 400, ""},
		{"POST /x HTTP/1.1\nHost: h\nContent-Length: 3\nContent-Length: 4", "abcd", 400, ""},
		{"POST /x HTTP/1.1\nHost: h\nContent-Length: +3", "abc", 400, ""},
		{"POST /x HTTP/1.1\nHost: h\nTransfer-Encoding: gzip", "abc", 501, ""},
		{"GET /x HTTP/3.0\nHost: h", "", 505, ""},
	} {
		client := e.send(strings.ReplaceAll(c.request, "\n", "\r\n") + "\r\n\r\n" + c.body)
		if c.status >= 400 {
			client.refused(c.status)
			client.ended()
			continue
		}
		method, _, _ := strings.Cut(c.request, " ")
		got, err := http.ReadResponse(client.br, &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%q: %v", c.request, err)
		}
		body, err := io.ReadAll(got.Body)
		got.Body.Close()
		if err != nil || got.StatusCode != c.status || string(body) != c.want {
			t.Errorf("%q: %s %q, %v; want %d %q", c.request, got.Status, body, err, c.status, c.want)
		}
		if strings.HasSuffix(strings.SplitN(c.request, "\n", 2)[0], "1.0") {
			client.ended()
			continue
		}
		// Nothing is left on the connection that could be taken for an answer to what comes next.
		say(client, "GET /next HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if answer, body := client.whole(); answer.StatusCode != http.StatusOK || body != "GET /next h " {
			t.Errorf("after %q: %s %q", c.request, answer.Status, body)
		}
	}
}
