// Package bench measures the built binary beside others, all of it real processes on loopback.
//
//	report, err := bench.Proxies(ctx, env, bench.ProxiesDefaults())   // the edge beside five others: memory, processor time, latency
//	report, err := bench.Sessions(ctx, env, bench.SessionsDefaults()) // the edge, nginx and HAProxy: what a session costs
//	report, err := bench.Push(ctx, env, bench.PushDefaults())         // what a push costs with 1 to 16 backends, and by Redis and RabbitMQ
//	err = report.Table().WriteText(os.Stdout)
//	err = bench.Save("bench/out", report)                             // JSON, and a plot as SVG
//
// `make bench`, `make bench-sessions` and `make bench-push` do just that, by way of cmd/bench.
//
// # Contract
//
// There is no report where there is an error: something was lost, came twice, or did not start. In one that comes
// without, every session that was opened was still open when it was measured and answered with its own bytes, and every push
// that the sender was told is delivered was seen by the one client it was meant for, once.
//
// Figures are medians over rounds; within a round all contenders have their turn, in an order that changes from round to
// round, each with processes of its own. The JSON has every round.
//
// # Limits
//
// Linux: memory and processor time are read from /proc. Clients are held by child processes of this program ([Role]),
// one descriptor and no goroutine per session; a process has as many sessions as its descriptor limit has room for. Everything is
// bounded in number and in time; nothing outlives the call. DESIGN.md says how things are measured, and what is noise.
package bench
