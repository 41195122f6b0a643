package testkit

import (
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
)

func TestConsulStopStartWipe(t *testing.T) {
	c := StartConsul(t)
	addr := c.Addr
	put := func(value string) {
		t.Helper()
		if _, err := c.Client().KV().Put(&api.KVPair{Key: "k", Value: []byte(value)}, nil); err != nil {
			t.Fatal(err)
		}
	}
	get := func() string {
		t.Helper()
		pair, _, err := c.Client().KV().Get("k", nil)
		if err != nil {
			t.Fatal(err)
		}
		if pair == nil {
			return ""
		}
		return string(pair.Value)
	}
	put("kept")

	c.Stop()
	if _, err := c.Client().Status().Leader(); err == nil {
		t.Fatal("a stopped Consul answers")
	}
	c.Start()
	if got := get(); got != "kept" {
		t.Fatalf("after a restart with its data: %q", got)
	}

	c.Stop()
	c.Wipe()
	began := time.Now()
	c.Start()
	t.Logf("a server with empty data was ready after %v", time.Since(began).Round(time.Millisecond))
	if got := get(); got != "" {
		t.Fatalf("after a wipe: %q", got)
	}
	if c.Addr != addr {
		t.Fatalf("the address moved from %s to %s", addr, c.Addr)
	}
}

func TestTwoConsulsAtOnce(t *testing.T) {
	a, b := StartConsul(t), StartConsul(t)
	if err := a.Client().Agent().ServiceRegister(&api.AgentServiceRegistration{Name: "only-a", Port: 1}); err != nil {
		t.Fatal(err)
	}
	services, _, err := b.Client().Catalog().Services(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, mixed := services["only-a"]; mixed || a.Addr == b.Addr {
		t.Fatalf("two servers are one: %s, %s, %v", a.Addr, b.Addr, services)
	}
}
