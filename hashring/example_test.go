package hashring_test

import (
	"fmt"

	"github.com/selvedge/selvedge/hashring"
)

func abc() *hashring.Ring {
	r, err := hashring.New([]hashring.Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}, {ID: "c", Weight: 2}})
	if err != nil {
		panic(err)
	}
	return r
}

func Example() {
	ring := abc()
	for _, user := range []string{"alice", "bob", "carol"} {
		fmt.Println(user, "lives at", ring.Owner(user))
	}
	// Output:
	// alice lives at a
	// bob lives at c
	// carol lives at b
}

func ExampleNew() {
	_, err := hashring.New([]hashring.Member{{ID: "a", Weight: 1}, {ID: "a", Weight: 2}})
	fmt.Println(err)
	// Output:
	// hashring: duplicate member ID: "a"
}

func ExampleWithSecret() {
	members := []hashring.Member{{ID: "a", Weight: 1}, {ID: "b", Weight: 1}}
	ring, err := hashring.New(members, hashring.WithSecret([]byte("read 16 random bytes from a file")))
	if err != nil {
		panic(err)
	}
	fmt.Println(ring.Owner("alice"))
	// Output:
	// a
}

func ExampleRing_Successors() {
	// Try the owner first, and then those that would own the key without it.
	for id := range abc().Successors("alice") {
		fmt.Println(id)
	}
	// Output:
	// a
	// b
	// c
}

func ExampleRing_With() {
	ring, err := abc().With(hashring.Member{ID: "d", Weight: 1})
	if err != nil {
		panic(err)
	}
	fmt.Println(ring.Members())
	// Output:
	// [{a 1} {b 1} {c 2} {d 1}]
}

func ExampleRing_Without() {
	ring := abc()
	fmt.Println(ring.Owner("bob"), "leaves, so bob moves to", ring.Without(ring.Owner("bob")).Owner("bob"))
	// Output:
	// c leaves, so bob moves to b
}

func ExampleRing_Share() {
	ring := abc()
	for _, m := range ring.Members() {
		fmt.Printf("%s: weight %d, %.1f %%\n", m.ID, m.Weight, ring.Share(m.ID)*100)
	}
	// Output:
	// a: weight 1, 24.9 %
	// b: weight 1, 25.1 %
	// c: weight 2, 50.0 %
}

func ExampleRing_Digest() {
	ring := abc()
	again, err := ring.Without("b").With(hashring.Member{ID: "b", Weight: 1})
	if err != nil {
		panic(err)
	}
	fmt.Println(ring.Digest() == again.Digest(), ring.Digest())
	// Output:
	// true 065e710ffdc60b84
}

func ExampleDiff() {
	before := abc()
	after := before.Without("b")
	moves := hashring.Diff(before, after)
	fmt.Println(len(moves), "ranges moved; the first:")
	fmt.Printf("%016x to %016x, from %s to %s\n", moves[0].Start, moves[0].End, moves[0].From, moves[0].To)
	// Output:
	// 3847 ranges moved; the first:
	// 0000000000000000 to 0008f91e70daffff, from b to c
}
