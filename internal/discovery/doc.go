// Package discovery tells who the members of a service are, and keeps telling.
//
// A [Source] reports the members of a service: [Consul], [Static], [File] or [Memory]; [Membership] opens the one that
// the command line names. A [View] follows one service through a source and publishes immutable snapshots:
//
//	src, err := discovery.Membership{Consul: &discovery.ConsulConfig{}}.Open("chat", log)
//	view := discovery.NewView("chat", src, log)
//	go view.Run(ctx)
//	<-view.Ready()
//	s := view.Snapshot() // members, ring and digest that belong together
//	owner, known := s.Member(s.Ring.Owner(user))
//
// A process that wants to be found announces itself where the source is an [Announcer] too:
//
//	self := make(chan discovery.Member, 1)
//	go announcer.Announce(ctx, "chat", self)
//	self <- discovery.Member{ID: "b1", Incarnation: started, Addr: "10.0.0.1:9000", Weight: 1}
//
// Who must know who is registered right now asks a [Reader]. [Resolve] and [Check] wrap a source: host names are looked up at their TTL, and members
// that no registry checks are checked.
//
// # Contract
//
//   - A snapshot never changes; reading it takes one atomic load. The ring is a new one only when the ring's members or
//     weights changed.
//   - What goes wrong behind a source (Consul away, a file that does not parse) is retried and logged; the last good
//     members stay in force, so nobody loses a ring that worked.
//   - Whoever comes back from an outage is not believed at once; nor is health where too many are critical, or a member that comes and
//     goes. DESIGN.md says what is held, kept and damped, and how long; [Member.InRing] takes it into account.
//   - Each service has members and a ring of its own; nothing here is global.
//
// # Limits
//
// A member's id has 1 to 256 bytes, its weight lies between 0 and [MaxWeight]. A registry file has at most 16 MiB.
// Followers of one view are called one after the other on the goroutine that learned of the change: they must not block.
package discovery
