package ringsim

import "slices"

// Result is what became of the users.
type Result struct {
	Users int    `json:"users"`
	Seed  uint64 `json:"seed"`
	Steps []Step `json:"steps"` // start, and where they were asked for, kill and add
}

// Step is a change of members and how users are spread after it. A member's load is its users against what its weight
// entitles it to, 1 being just that; where all weights are equal, that is its users against the mean.
type Step struct {
	Name    string `json:"step"` // start, kill or add
	Members int    `json:"members"`
	Weight  int    `json:"weight"` // of all members
	Ring    string `json:"ring"`   // its digest

	PeakToMean  float64 `json:"peak_to_mean"`  // the largest load
	LeastToMean float64 `json:"least_to_mean"` // the smallest
	PeakMember  string  `json:"peak_member"`   // who has the largest
	PeakUsers   int     `json:"peak_users"`    // and how many users those are

	Moved            int     `json:"moved"`             // users whose owner changed in this step
	Least            int     `json:"least"`             // users that had to, however they are assigned
	MovedToLeast     float64 `json:"moved_to_least"`    // 1 where nobody had to move and nobody did
	BetweenSurvivors int     `json:"between_survivors"` // users that moved though both members were there before and after

	loads []float64 // sorted
}

func (s *Sim) result(t *tally) *Result {
	r := &Result{Users: s.cfg.Users, Seed: s.cfg.Seed}
	for p, ph := range s.phases {
		step := Step{Name: ph.name, Ring: ph.ring.Digest(), Moved: t.moved[p], BetweenSurvivors: t.between[p], MovedToLeast: 1}
		for i, m := range s.members {
			if ph.in[i] {
				step.Members++
				step.Weight += m.Weight
			}
		}
		for i, m := range s.members {
			if p > 0 {
				step.Least += max(0, t.users[p-1][i]-t.users[p][i])
			}
			if !ph.in[i] {
				continue
			}
			due := float64(s.cfg.Users) * float64(m.Weight) / float64(step.Weight)
			load := float64(t.users[p][i]) / due
			step.loads = append(step.loads, load)
			if load > step.PeakToMean {
				step.PeakToMean, step.PeakMember, step.PeakUsers = load, m.ID, t.users[p][i]
			}
		}
		slices.Sort(step.loads)
		step.LeastToMean = step.loads[0]
		if step.Least > 0 {
			step.MovedToLeast = float64(step.Moved) / float64(step.Least)
		}
		r.Steps = append(r.Steps, step)
	}
	return r
}
