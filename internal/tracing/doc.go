// Package tracing makes the spans of a push on its way: at the sender, at its tries, at each member that it comes to, and at each that one asks. A nil
// [Tracer] makes none, and costs nothing.
//
//	span := tracer.Start(ctx, tracing.Push, r.Traceparent)
//	defer span.End(sessions, err)
//	request.Traceparent = span.Traceparent()
//
// Many pushes share a stream between two processes, so the context of a trace travels with each push, as a W3C traceparent in a field of its own.
// Spans are made by the interface of OpenTelemetry; who collects them is its provider's business, see package otlp. They hold no user and no payload.
package tracing
