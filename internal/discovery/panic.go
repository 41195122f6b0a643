package discovery

// DefaultPanicThreshold is the panic threshold of a service for which none is set.
const DefaultPanicThreshold = 0.5

// keepCritical puts the critical members that want users into the ring, and tells so, where fewer than the share threshold (0 to 1; 0:
// never) of those that want users are healthy: that many members do not die at once, but their checks, or the way to the registry, do.
//
// Who drains, joins, is in maintenance, has weight 0 or is deregistered does not want users, so that nothing an operator takes away
// counts. Nor does a newcomer, one that proven does not know: it may be critical because it is still starting.
func keepCritical(members []Member, threshold float64, proven func(id string) bool) bool {
	var healthy int
	var critical []*Member
	for i := range members {
		switch m := &members[i]; {
		case !m.wantsUsers():
		case m.Health != Critical:
			healthy++
		case proven(m.ID):
			critical = append(critical, m)
		}
	}
	if float64(healthy) >= threshold*float64(healthy+len(critical)) {
		return false
	}
	for _, m := range critical {
		m.Override = Kept
	}
	return true
}
