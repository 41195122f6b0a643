package main

import "fmt"

// must is what package backend has to reach, beside its peers in the same rounds.
type must struct {
	What    string  `json:"what"`
	Ours    float64 `json:"selvedge"`
	Most    float64 `json:"most"`
	Below   bool    `json:"below"`   // Most itself is too much
	Against string  `json:"against"` // what Most comes from
	Met     bool    `json:"met"`
}

func (m must) String() string {
	verdict, bound := "NOT MET", "at most"
	if m.Met {
		verdict = "MET"
	}
	if m.Below {
		bound = "below"
	}
	return fmt.Sprintf("%-7s  %s: %.2f, must be %s %.2f (%s)", verdict, m.What, m.Ours, bound, m.Most, m.Against)
}

// check compares the medians.
func check(rows []row) []must {
	of := make(map[string]figures)
	for _, r := range rows {
		of[r.Contender] = r.figures
	}
	ours, gorilla, coder, bare := of["selvedge"], of["gorilla/websocket"], of["coder/websocket"], of["write(2)"]
	list := []must{
		{What: "user-space bytes per idle session", Ours: ours.IdleBytes, Most: 1500, Against: "fixed"},
		{What: "CPU us per echo", Ours: ours.EchoCPU, Most: min(gorilla.EchoCPU, coder.EchoCPU), Below: true, Against: "the better of gorilla and coder"},
		{What: "CPU us per delivery of a broadcast", Ours: ours.DeliverCPU, Most: min(gorilla.DeliverCPU, coder.DeliverCPU), Below: true,
			Against: "the better of gorilla and coder"},
		{What: "CPU us per delivery of a broadcast", Ours: ours.DeliverCPU, Most: 1.5 * bare.DeliverCPU, Against: "1.5 x write(2)"},
		{What: "CPU us per delivery by PushMany", Ours: ours.ManyCPU, Most: 1.5 * ours.DeliverCPU, Against: "1.5 x a broadcast's"},
	}
	for i := range list {
		m := &list[i]
		m.Met = m.Ours < m.Most || m.Ours == m.Most && !m.Below
	}
	return list
}
