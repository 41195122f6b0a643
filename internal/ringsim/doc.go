// Package ringsim answers an operator's questions about rings before they are asked in earnest: what a change of members
// moves, and how users spread over members.
//
//	change := ringsim.Compare(before, after)                   // exact, by ranges of hashes
//	fmt.Println(change.Moved, change.Least, change.Flows)
//
//	sim, err := ringsim.New(ringsim.Config{Members: 1000, Users: 10_000_000, Kill: 10, Add: 5})
//	result, err := sim.Run(ctx, nil)                           // user by user
//	err = result.WriteSVG(file)
//
// # Contract
//
// A simulation asks the ring that the product routes by for the owner of each user, before and after members are killed,
// and after others are added. The same Config gives the same Result to the last user, on any number of processors.
//
// "Least" is, here and there, what any way to assign users has to move to get from the one distribution to the other:
// the sum of what members lose. A change that moves no user between members that gain nothing moves exactly that.
//
// # Limits
//
// Up to three rings are in memory at once, each of 57 KiB per unit of weight, and users are never stored: 1,000 members
// of weight 1 take some 170 MiB, whatever the number of users. 10,000,000 users on 1,000 members take about three
// seconds on two cores, 0.5 µs of one core each.
package ringsim
