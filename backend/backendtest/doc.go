// Package backendtest runs a member in the test's own process, so that a service can test its handlers without an edge or a registry.
//
//	m := backendtest.New(t, backend.Config{OnMessage: greet})
//	alice := m.Connect("alice")
//	alice.Send(backend.Text("hi"))
//	if got := alice.Receive(); string(got.Data) != "hello, alice" { ... }
//
// What goes wrong fails the test at once, so all calls are made on the test's goroutine. Everything ends with the test.
package backendtest
