package tracing

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Kind is what a span stands for.
type Kind struct {
	name string
	kind trace.SpanKind
}

// The spans of a push, from outside in.
var (
	Push    = Kind{"selvedge push", trace.SpanKindProducer}  // a sender's call, its tries included
	Try     = Kind{"selvedge try", trace.SpanKindClient}     // one call of a sender to a member
	Receive = Kind{"selvedge receive", trace.SpanKindServer} // a push at the member that the sender called
	Forward = Kind{"selvedge forward", trace.SpanKindClient} // a member's call to the user's home
	Ask     = Kind{"selvedge ask", trace.SpanKindClient}     // a member's question to another that may hold sessions
	Home    = Kind{"selvedge home", trace.SpanKindServer}    // a forwarded push at the user's home
	Deliver = Kind{"selvedge deliver", trace.SpanKindServer} // a question at a member: what its own sessions took
)

// Tracer makes spans; nil makes none.
type Tracer struct {
	tracer trace.Tracer
	common []attribute.KeyValue
}

// New returns a tracer by provider, nil where that is nil. Its spans say which service it is, and which member if it is one.
func New(provider trace.TracerProvider, service, member string) *Tracer {
	if provider == nil {
		return nil
	}
	common := []attribute.KeyValue{attribute.String("selvedge.service", service)}
	if member != "" {
		common = append(common, attribute.String("selvedge.member", member))
	}
	return &Tracer{provider.Tracer("github.com/selvedge/selvedge"), common}
}

// Start begins a span: of the trace that traceparent names, else of the one that ctx has a span of, else of a new one.
func (t *Tracer) Start(ctx context.Context, k Kind, traceparent string) Span {
	if t == nil {
		return Span{}
	}
	if parent, ok := parse(traceparent); ok {
		ctx = trace.ContextWithRemoteSpanContext(ctx, parent)
	}
	_, span := t.tracer.Start(ctx, k.name, trace.WithSpanKind(k.kind), trace.WithAttributes(t.common...))
	return Span{span}
}

// Child begins a span within parent, about peer; none where parent is none.
func (t *Tracer) Child(parent Span, k Kind, peer string) Span {
	if t == nil || parent.span == nil {
		return Span{}
	}
	ctx := trace.ContextWithSpan(context.Background(), parent.span)
	_, span := t.tracer.Start(ctx, k.name, trace.WithSpanKind(k.kind), trace.WithAttributes(t.common...), trace.WithAttributes(attribute.String("selvedge.peer", peer)))
	return Span{span}
}

// Span is one that has begun; the zero Span is none.
type Span struct{ span trace.Span }

// IsOn tells whether there is one.
func (s Span) IsOn() bool { return s.span != nil }

// Message notes the message's id.
func (s Span) Message(id string) {
	if s.span != nil {
		s.span.SetAttributes(attribute.String("messaging.message.id", id))
	}
}

// Users notes for how many users a push is.
func (s Span) Users(n int) {
	if s.span != nil {
		s.span.SetAttributes(attribute.Int("selvedge.users", n))
	}
}

// End ends it with what came of it: how many sessions, or an error.
func (s Span) End(sessions int, err error) {
	if s.span == nil {
		return
	}
	s.span.SetAttributes(attribute.Int("selvedge.sessions", sessions))
	if err != nil {
		s.span.SetStatus(codes.Error, err.Error())
	}
	s.span.End()
}

// Traceparent is what others name as the parent of their spans; "" of none.
func (s Span) Traceparent() string {
	if s.span == nil {
		return ""
	}
	c := s.span.SpanContext()
	text := make([]byte, 0, traceparentSize)
	text = append(text, "00-"...)
	id := c.TraceID()
	text = append(hex.AppendEncode(text, id[:]), '-')
	spanID := c.SpanID()
	text = append(hex.AppendEncode(text, spanID[:]), '-')
	return string(hex.AppendEncode(text, []byte{byte(c.TraceFlags())}))
}

const traceparentSize = len("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")

// Parent is the traceparent of a request: that of its field, else that of its header, as clients of HTTP send it.
func Parent(field string, header http.Header) string {
	if field != "" {
		return field
	}
	return header.Get("Traceparent")
}

// parse reads a traceparent (W3C Trace Context, section 3.2). Later versions may have more behind it. What is none is ignored, as the recommendation has it.
func parse(text string) (c trace.SpanContext, ok bool) {
	if len(text) < traceparentSize || text[2] != '-' || text[35] != '-' || text[52] != '-' || len(text) > traceparentSize && text[traceparentSize] != '-' {
		return c, false
	}
	version, err := strconv.ParseUint(text[:2], 16, 8)
	if err != nil || version == 0xff || version == 0 && len(text) != traceparentSize {
		return c, false
	}
	traceID, err := trace.TraceIDFromHex(text[3:35])
	spanID, err2 := trace.SpanIDFromHex(text[36:52])
	flags, err3 := strconv.ParseUint(text[53:55], 16, 8)
	if err != nil || err2 != nil || err3 != nil {
		return c, false
	}
	c = trace.NewSpanContext(trace.SpanContextConfig{TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags) & trace.FlagsSampled, Remote: true})
	return c, c.IsValid()
}
