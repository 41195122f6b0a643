package otlp

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Config says where spans go and which.
type Config struct {
	Endpoint string  // URL of the collector, to which /v1/traces is added; "": OTEL_EXPORTER_OTLP_ENDPOINT, or off
	Sample   float64 // share of the traces that begin here, 0 to 1; 0: OTEL_TRACES_SAMPLER, or all
	Process  string  // edge or backend
	Instance string  // its name among others
	Version  string
	Logger   *zap.Logger
}

// EndpointError says that the configured endpoint is none.
type EndpointError struct{ endpoint string }

func (e *EndpointError) Error() string {
	return fmt.Sprintf("%q is no URL of a collector; want http://HOST:4318", e.endpoint)
}

// farewell is how long the last spans may take.
const farewell = 3 * time.Second

// Start returns the provider of this process' tracers, nil where tracing is off, and a function that sends what is left and stops.
func Start(cfg Config) (provider trace.TracerProvider, stop func(), err error) {
	nothing := func() {}
	if !cfg.isOn() {
		return nil, nothing, nil
	}
	var options []otlptracehttp.Option
	if cfg.Endpoint != "" {
		if u, err := url.Parse(cfg.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, nothing, &EndpointError{cfg.Endpoint}
		}
		options = append(options, otlptracehttp.WithEndpointURL(strings.TrimSuffix(cfg.Endpoint, "/")+"/v1/traces"))
	}
	ctx := context.Background()
	exporter, err := otlptracehttp.New(ctx, options...)
	if err != nil {
		return nil, nothing, fmt.Errorf("otlp: %w", err)
	}
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(
		attribute.String("service.name", "selvedge-"+cfg.Process), attribute.String("service.version", cfg.Version),
		attribute.String("service.instance.id", cfg.Instance)), resource.WithFromEnv()) // the environment wins
	if err != nil {
		return nil, nothing, fmt.Errorf("otlp: %w", err)
	}
	made := []sdktrace.TracerProviderOption{sdktrace.WithBatcher(exporter), sdktrace.WithResource(about)}
	if cfg.Sample > 0 {
		made = append(made, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Sample))))
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { cfg.Logger.Warn("spans are lost", zap.Error(err)) }))
	sdk := sdktrace.NewTracerProvider(made...)
	return sdk, func() {
		ctx, cancel := context.WithTimeout(ctx, farewell)
		defer cancel()
		if err := sdk.Shutdown(ctx); err != nil {
			cfg.Logger.Warn("the last spans are lost", zap.Error(err))
		}
	}, nil
}

// isOn tells whether somebody has said where spans go, and nobody that there should be none.
func (c Config) isOn() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return c.Endpoint != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}
