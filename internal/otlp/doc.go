// Package otlp sends the spans of this process to a collector, by OTLP over HTTP.
//
//	provider, stop, err := otlp.Start(otlp.Config{Endpoint: "http://127.0.0.1:4318", Process: "edge"})
//	defer stop()
//
// OpenTelemetry's environment variables count (OTEL_EXPORTER_OTLP_ENDPOINT, _HEADERS, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES,
// OTEL_SDK_DISABLED, ...). Without an endpoint in either there is no provider, and nothing is traced. Spans wait in a queue of 2,048; what does not fit is dropped.
package otlp
