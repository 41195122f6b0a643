package hashring

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sort"
)

// An index finds the owner of nearly every hash in one cache line. It cuts the hash space into equal blocks of about
// nine points; a hash's block is hash*blocks/2^64, and the fraction that is left over is its place within the block.
type index []block

// A block is one cache line: the places of up to 15 points, in order, and who owns the hashes up to each. A place is
// the upper 15 bits of the fraction. Lanes without a point hold lastPlace and the owner of the next point that follows.
type block struct {
	places [lanes * 2]byte // 16 little-endian numbers of 15 bits
	owners [lanes]uint16
}

const (
	lanes     = 16
	perBlock  = 9 // on average: 2 % of the blocks overflow, and index and points stay below 64 KiB per unit of weight
	placeBits = 15
	lastPlace = 1<<placeBits - 1
	overfull  = 1<<16 - 1 // in the last lane: equal to every place but lastPlace, see lookup

	each = 0x0001_0001_0001_0001 // times a number: that number in four lanes
	tops = 0x8000_8000_8000_8000 // the bit of each lane that a place leaves free
)

// place returns the block of a hash and, in its lower 15 bits, the place within it. It grows with the hash.
func (x index) place(h uint64) uint64 {
	at, _ := bits.Mul64(h, uint64(len(x))<<placeBits)
	return at
}

// newIndex builds the index of sorted points; nil of none.
func newIndex(points []point) index {
	if len(points) == 0 {
		return nil
	}
	x := make(index, (len(points)+perBlock-1)/perBlock)
	// The last blocks see the first points follow the last ones. Those belong to the first blocks, so that no block
	// here takes them for its own.
	tail := len(points) - lanes
	wrapped := slices.Concat(points[tail:], points[:lanes])
	inParallel(len(x), 4096, func(from, to int) {
		i := sort.Search(len(points), func(i int) bool { return x.block(points[i]) >= from })
		for b := from; b < to; b++ {
			window := wrapped[max(0, i-tail):]
			if i < tail {
				window = points[i:]
			}
			i += x.fill(b, (*[lanes]point)(window))
			for i < len(points) && x.block(points[i]) == b {
				i++ // of an overfull block
			}
		}
	})
	return x
}

// block returns the block that the point stands in. Here and in fill its lower bits, the owner, may stay: they put it
// late in its cell, and a hash is looked up by the first hash of its cell.
func (x index) block(p point) int { return int(x.place(uint64(p)) >> placeBits) }

// fill fills block b from the points that stand in it or, once those end, after it, and returns how many of them stand
// in it. Owners need no look at where the block ends: the next point's owner is what the lane after the last must hold.
// It has no branch that depends on a point, for With fills a block for every nine points of the ring.
func (x index) fill(b int, window *[lanes]point) int {
	k := &x[b]
	start := uint64(b) << placeBits
	n := uint64(lanes)
	for l := 0; l < lanes; l += 4 {
		w := (*[4]point)(window[l:])
		o := (*[4]uint16)(k.owners[l:])
		o[0], o[1], o[2], o[3] = w[0].owner(), w[1].owner(), w[2].owner(), w[3].owner()
		p0, out0 := within(x.place(uint64(w[0])) - start)
		p1, out1 := within(x.place(uint64(w[1])) - start)
		p2, out2 := within(x.place(uint64(w[2])) - start)
		p3, out3 := within(x.place(uint64(w[3])) - start)
		binary.LittleEndian.PutUint64(k.places[2*l:], p0|p1<<16|p2<<32|p3<<48)
		n -= out0 + out1 + out2 + out3
	}
	if n == lanes {
		for l := 0; l < lanes; l += 4 {
			binary.LittleEndian.PutUint64(k.places[2*l:], lastPlace*each)
		}
		binary.LittleEndian.PutUint16(k.places[2*(lanes-1):], overfull)
	}
	return int(n)
}

// within returns the place, or lastPlace and 1 where it is in another block.
func within(place uint64) (within, out uint64) {
	_, out = bits.Sub64(lastPlace, place, 0)
	return min(place, lastPlace), out
}

// lookup returns the owner of a hash whose lower 16 bits are 0, or false where the places are too coarse to tell: the
// hash shares its place with a point, or the block has more points than lanes.
//
// It compares four lanes at a time, without a branch. In each lane, with the free bit set on one side, a-b keeps that
// bit exactly if a >= b and borrows nothing from its neighbour. The mark of an overfull block makes the last lane look
// equal to each place below lastPlace, and the other lanes, which then all hold lastPlace, do so for that one.
func (x index) lookup(h uint64) (owner uint16, ok bool) {
	at := x.place(h)
	k := &x[at>>placeBits]
	v := (at & lastPlace) * each
	vt := v | tops
	p0 := binary.LittleEndian.Uint64(k.places[0:])
	p1 := binary.LittleEndian.Uint64(k.places[8:])
	p2 := binary.LittleEndian.Uint64(k.places[16:])
	p3 := binary.LittleEndian.Uint64(k.places[24:])
	g0, g1, g2, g3 := (p0|tops)-v, (p1|tops)-v, (p2|tops)-v, (p3|tops)-v // point >= hash
	equal := ((vt-p0)&g0 | (vt-p1)&g1 | (vt-p2)&g2 | (vt-p3)&g3) & tops
	if equal != 0 {
		return 0, false
	}
	// Of each lane the bit is added up: at most 4 in each, and 16 in the upper lane of the product.
	after := (g0&tops>>placeBits + g1&tops>>placeBits + g2&tops>>placeBits + g3&tops>>placeBits) * each >> 48
	return k.owners[(lanes-after)%lanes], true
}
