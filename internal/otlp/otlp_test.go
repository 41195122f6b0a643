package otlp_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/selvedge/selvedge/internal/otlp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestOffByDefault(t *testing.T) {
	for name, set := range map[string]func(*testing.T){
		"nothing said": func(*testing.T) {},
		"disabled": func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv("OTEL_SDK_DISABLED", "true")
		},
		"no exporter": func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
			t.Setenv("OTEL_TRACES_EXPORTER", "none")
		},
	} {
		t.Run(name, func(t *testing.T) {
			set(t)
			provider, stop, err := otlp.Start(otlp.Config{Process: "edge", Logger: zap.NewNop()})
			if provider != nil || err != nil {
				t.Errorf("%v, %v", provider, err)
			}
			stop()
		})
	}
	var bad *otlp.EndpointError
	if _, _, err := otlp.Start(otlp.Config{Endpoint: "127.0.0.1:4318", Logger: zap.NewNop()}); !errors.As(err, &bad) {
		t.Errorf("no URL: %v", err)
	}
}

// Stop sends what is left, with who it is from; the environment's word counts.
func TestStopSendsTheRest(t *testing.T) {
	for name, endpoint := range map[string]func(url string) string{
		"configured":      func(url string) string { return url + "/" },
		"the environment": func(url string) string { t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url); return "" },
	} {
		t.Run(name, func(t *testing.T) {
			got := make(chan *collector.ExportTraceServiceRequest, 1)
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				request := new(collector.ExportTraceServiceRequest)
				if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, request) != nil {
					t.Errorf("%s: %v", r.URL, err)
				}
				got <- request
			}))
			defer s.Close()
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test")
			provider, stop, err := otlp.Start(otlp.Config{Endpoint: endpoint(s.URL), Process: "edge", Instance: "e1", Version: "v1", Logger: zap.NewNop()})
			if err != nil {
				t.Fatal(err)
			}
			_, span := provider.Tracer("x").Start(context.Background(), "one")
			span.End()
			stop()
			about := make(map[string]string)
			spans := (<-got).ResourceSpans
			for _, a := range spans[0].Resource.Attributes {
				about[a.Key] = a.Value.GetStringValue()
			}
			if about["service.name"] != "selvedge-edge" || about["service.instance.id"] != "e1" || about["service.version"] != "v1" || about["deployment.environment"] != "test" {
				t.Errorf("%v", about)
			}
			if spans[0].ScopeSpans[0].Spans[0].Name != "one" {
				t.Errorf("%v", spans)
			}
		})
	}
}
