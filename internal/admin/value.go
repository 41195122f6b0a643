package admin

import (
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// Value reads a counter or a gauge that stands at 0 or more, for who wants to show what is counted anyway.
func Value(m prometheus.Metric) uint64 {
	var out dto.Metric
	if m.Write(&out) != nil {
		return 0
	}
	return uint64(max(0, out.GetCounter().GetValue()+out.GetGauge().GetValue()))
}
