// Package doctor examines a set-up from the host that it runs on: the kernel's limits, Consul and what its token may, whether all members and edges
// decide by the same ring, their clocks, and certificates. Each finding says what would mend it.
//
//	for _, f := range doctor.Examine(ctx, doctor.Config{Settings: settings, Edges: []string{"http://10.0.0.1:8081"}}) {
//		fmt.Println(f.Level, f.Check, f.Text, f.Mend)
//	}
//
// It reads and asks, and changes nothing. Members are those of the registry; edges stand in none, so the caller names them.
package doctor
