package main

import (
	"errors"
	"os"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/otlp"
)

// startTracing returns the provider of a process' spans, nil where nobody has said where they go, and a function that sends the last of them.
func startTracing(s *config.Settings, process, name string, log *zap.Logger) (trace.TracerProvider, func(), error) {
	if share := s.Tracing.Sample; !(share >= 0 && share <= 1) { // NaN, too
		return nil, nil, usage(s.Wrong("tracing.sample", "want a share above 0, to 1, such as 0.01"))
	}
	if name == "" {
		name, _ = os.Hostname() // as the edge and the backend do
	}
	provider, stop, err := otlp.Start(otlp.Config{
		Endpoint: s.Tracing.OTLP, Sample: s.Tracing.Sample, Process: process, Instance: name, Version: version, Logger: log,
	})
	if err != nil {
		var bad *otlp.EndpointError
		if errors.As(err, &bad) {
			err = s.Wrong("tracing.otlp", err.Error())
		}
		return nil, nil, usage(err)
	}
	return provider, stop, nil
}
