package tracing_test

import (
	"context"
	"errors"
	"net/http"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/selvedge/selvedge/internal/tracing"
)

// A push that nobody traces pays nothing for it.
func TestOffCostsNothing(t *testing.T) {
	off := tracing.New(nil, "chat", "b1")
	if off != nil {
		t.Fatal("a tracer without a provider")
	}
	err := errors.New("away")
	if n := testing.AllocsPerRun(100, func() {
		span := off.Start(context.Background(), tracing.Push, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
		child := off.Child(span, tracing.Try, "b1")
		span.Message("m1")
		span.Users(2)
		if child.IsOn() || child.Traceparent() != "" {
			t.Error("a span")
		}
		child.End(0, err)
		span.End(1, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSpans(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	sender, member := tracing.New(provider, "chat", ""), tracing.New(provider, "chat", "b1")

	push := sender.Start(context.Background(), tracing.Push, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	try := sender.Child(push, tracing.Try, "b1")
	received := member.Start(context.Background(), tracing.Receive, try.Traceparent())
	received.Message("m1")
	received.End(2, nil)
	try.End(0, errors.New("lost"))
	push.Users(3)
	push.End(2, nil)

	spans := recorder.Ended()
	if len(spans) != 3 {
		t.Fatalf("%d spans", len(spans))
	}
	receive, tried, pushed := spans[0], spans[1], spans[2]
	for _, s := range spans {
		if got := s.SpanContext().TraceID().String(); got != "0af7651916cd43dd8448eb211c80319c" {
			t.Errorf("%s is of trace %s", s.Name(), got)
		}
	}
	if pushed.Parent().SpanID().String() != "b7ad6b7169203331" || tried.Parent().SpanID() != pushed.SpanContext().SpanID() ||
		receive.Parent().SpanID() != tried.SpanContext().SpanID() || !receive.Parent().IsRemote() {
		t.Errorf("parents: %v, %v, %v", pushed.Parent(), tried.Parent(), receive.Parent())
	}
	if tried.Status().Code != codes.Error || receive.Status().Code == codes.Error {
		t.Errorf("status: %v, %v", tried.Status(), receive.Status())
	}
	attributes := make(map[string]string)
	for _, a := range receive.Attributes() {
		attributes[string(a.Key)] = a.Value.String()
	}
	if attributes["selvedge.service"] != "chat" || attributes["selvedge.member"] != "b1" || attributes["selvedge.sessions"] != "2" || attributes["messaging.message.id"] != "m1" {
		t.Errorf("attributes: %v", attributes)
	}
	if receive.SpanKind() != trace.SpanKindServer || tried.SpanKind() != trace.SpanKindClient {
		t.Error("kinds")
	}
}

// A span that the embedding process has begun is the parent, where the request names none.
func TestParentOfTheContext(t *testing.T) {
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	ctx, outer := provider.Tracer("app").Start(context.Background(), "handler")
	tracing.New(provider, "chat", "").Start(ctx, tracing.Push, "").End(1, nil)
	if got := recorder.Ended()[0].Parent().SpanID(); got != outer.SpanContext().SpanID() {
		t.Errorf("parent %v", got)
	}
}

func TestTraceparent(t *testing.T) {
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	recorder := tracetest.NewSpanRecorder()
	tracer := tracing.New(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder), sdktrace.WithSampler(sdktrace.AlwaysSample())), "chat", "")
	for text, continued := range map[string]bool{
		good: true, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00": true, "cc" + good[2:] + "-what-comes": true, "cc" + good[2:]: true,
		"": false, good[:54]: false, good + "-more": false, good + "x": false, "ff" + good[2:]: false, "zz" + good[2:]: false,
		"00-00000000000000000000000000000000-b7ad6b7169203331-01": false, "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01": false,
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01": false, "00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01": false,
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz": false,
	} {
		span := tracer.Start(context.Background(), tracing.Receive, text)
		if got := span.Traceparent()[3:35] == good[3:35]; got != continued {
			t.Errorf("%q: continued: %t", text, got)
		}
		span.End(0, nil)
	}
	if got := tracing.Parent("field", http.Header{"Traceparent": {good}}); got != "field" {
		t.Errorf("field and header: %q", got)
	}
	if got := tracing.Parent("", http.Header{"Traceparent": {good}}); got != good {
		t.Errorf("header: %q", got)
	}
}
