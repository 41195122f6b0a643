package edge_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/selvedge/selvedge/edge"
)

// An edge in front of one backend: plain HTTP and WebSockets of a user go to the member that owns the user, which is told who it is.
func Example() {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello ", r.Header.Get("X-Selvedge-User"))
	}))
	defer backend.Close()

	e, err := edge.New(edge.Config{
		Listen:     []edge.Listener{{Addr: "127.0.0.1:0"}}, // any free port
		Admin:      edge.Admin{Addr: "off"},
		Routes:     []edge.Route{{Path: "/", Service: "chat", Key: "query:user"}},
		Membership: edge.Membership{Backends: "b1=" + strings.TrimPrefix(backend.URL, "http://")},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	<-e.Ready()              // it listens
	<-e.View("chat").Ready() // and knows the members

	for _, path := range []string{"/?user=alice", "/?user=j%C3%BCrgen", "/"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.Addr().String()+path, nil)
		if err != nil {
			fmt.Println(err)
			return
		}
		request.Close = true
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(response.Body)
		response.Body.Close()
		said, _, _ := strings.Cut(string(body), `,"request_id"`)
		fmt.Println(response.StatusCode, said)
	}
	stop()
	fmt.Println("drained:", <-ended)
	// Output:
	// 200 hello alice
	// 200 hello j%C3%BCrgen
	// 400 {"error":"user id: query parameter \"user\": not given"
	// drained: <nil>
}
