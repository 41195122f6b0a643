package discovery

import (
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/selvedge/selvedge/internal/testkit"
)

// BenchmarkThousandMembers is what a change of one member costs each process that watches 1,000: Consul's answer (B/answer), from asking for it to the
// ring that it makes.
func BenchmarkThousandMembers(b *testing.B) {
	const members = 1000
	consul := testkit.StartConsul(b)
	for i := range members {
		id := fmt.Sprintf("b-%d", i)
		_, err := consul.Client().Catalog().Register(&api.CatalogRegistration{
			Node: fmt.Sprintf("node-%d", i), Address: "10.0.0.1",
			Service: &api.AgentService{ID: id, Service: "chat", Address: fmt.Sprintf("10.0.%d.%d", i/250, i%250), Port: 9000, Meta: map[string]string{
				metaID: id, metaRPC: fmt.Sprintf("10.0.%d.%d:9100", i/250, i%250), metaIncarnation: "1790000000000000000", metaState: "serving",
			}, Weights: api.AgentWeights{Passing: 1, Warning: 1}},
			Check: &api.AgentCheck{Node: fmt.Sprintf("node-%d", i), CheckID: "service:" + id, Name: "heartbeat", Status: api.HealthPassing, ServiceID: id},
		}, nil)
		if err != nil {
			b.Fatal(err)
		}
	}
	answer, err := http.Get("http://" + consul.Addr + "/v1/health/service/chat")
	if err != nil {
		b.Fatal(err)
	}
	bytes, err := io.Copy(io.Discard, answer.Body)
	answer.Body.Close()
	http.DefaultClient.CloseIdleConnections()
	if err != nil {
		b.Fatal(err)
	}
	source, err := NewConsul(ConsulConfig{Addr: consul.Addr, Stale: true}, nil)
	if err != nil {
		b.Fatal(err)
	}
	defer source.transport.CloseIdleConnections()
	b.ReportAllocs()
	for b.Loop() {
		list, err := source.Read(b.Context(), "chat")
		if err != nil || len(list) != members {
			b.Fatalf("%d members, %v", len(list), err)
		}
		snap, err := (&Snapshot{Service: "chat"}).successor(list)
		if err != nil || snap.Ring.Len() != members {
			b.Fatalf("%d members on the ring, %v", snap.Ring.Len(), err)
		}
	}
	b.ReportMetric(float64(bytes), "B/answer")
}
