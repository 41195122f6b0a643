package bench

import "fmt"

// of returns the row of a way with a number of backends.
func (r *PushReport) of(way string, backends int) (row *PushRow, measured bool) {
	for i := range r.Rows {
		if r.Rows[i].Way == way && r.Rows[i].Backends == backends {
			return &r.Rows[i], true
		}
	}
	return nil, false
}

// check compares the medians, as far as they were measured. Processor time is that of pushes, without what is spent while there are none.
func (r *PushReport) check() []Must {
	var list []Must
	add := func(what string, ours, most float64, against string) {
		list = append(list, Must{What: what, Ours: ours, Most: most, Against: against, Met: ours <= most})
	}
	rate := fmt.Sprintf("at %s/s", thousands(float64(r.Config.Rate)))
	loads := []struct {
		name string
		cpu  func(*PushRow) float64
	}{
		{"closed loop", (*PushRow).closedCPU},
		{rate, func(row *PushRow) float64 { return row.pacedCPU(r.Config.Rate) }},
	}
	const few, most = 1, 16
	for _, load := range loads {
		for _, way := range []string{WaySelvedge, WayRedis, WayPipelined, WayRabbitMQ} {
			one, measured := r.of(way, few)
			all, too := r.of(way, most)
			switch {
			case !measured || !too:
			case way == WaySelvedge:
				add("CPU us/push with 16 backends, "+load.name, load.cpu(all), 1.3*load.cpu(one), "1.3 x with 1")
			default: // the must is that it grows: here its own figures are compared
				add(way+": CPU us/push with 1 backend, "+load.name, load.cpu(one), load.cpu(all), "its own with 16")
			}
		}
	}
	ours, measured := r.of(WaySelvedge, bridgeBackends)
	rabbit, both := r.of(WayRabbitMQ, bridgeBackends)
	for _, way := range []string{WayRedis, WayPipelined} {
		theirs, too := r.of(way, bridgeBackends)
		if !measured || !too {
			continue
		}
		for _, load := range loads {
			add("CPU us/push with 4 backends, "+load.name, load.cpu(ours), 0.5*load.cpu(theirs), "0.5 x "+way)
		}
	}
	for _, way := range []string{WayRedis, WayPipelined, WayRabbitMQ} {
		if theirs, too := r.of(way, bridgeBackends); measured && too {
			add("p50 us "+rate+", 4 backends", ours.Median.ClientP50, theirs.Median.ClientP50, way)
			add("p99 us "+rate+", 4 backends", ours.Median.ClientP99, theirs.Median.ClientP99, way)
		}
	}
	if over, too := r.of(WayBridge, bridgeBackends); both && too {
		for _, load := range loads {
			add("bridge: CPU us/push with 4 backends, "+load.name, load.cpu(over), load.cpu(rabbit), WayRabbitMQ)
		}
	}
	return list
}
