package hashring

import "math/bits"

// An index finds the owner of nearly every hash in one cache line. It cuts the hash space into equal blocks of about
// ten points; a hash's block is hash*blocks/2^64, and the fraction that is left over is its place within the block.
type index []block

// A block is one cache line: the places of the 16 points from its beginning on, in order, and the numbers of their
// owners. A place is the upper 15 bits of the fraction; four of them share a word. Where the block has fewer points, the
// next lane has lastPlace and the owner of the point that follows, and nobody looks at the lanes after it.
type block struct {
	places [lanes / 4]uint64
	owners [lanes]uint16
}

const (
	lanes     = 16
	perBlock  = 10 // points, before blocks rounds down: 10 to 11.2, of which 0.5 to 1.1 % of the hashes are beyond the lanes
	placeBits = 15
	lastPlace = 1<<placeBits - 1

	each = 0x0001_0001_0001_0001 // times a number: that number in four lanes
	tops = 0x8000_8000_8000_8000 // the bit of each lane that a place leaves free
)

// blocks returns how many blocks the index of a ring of that total weight has. It heeds the upper four bits of the
// weight only, so that most changes of a ring leave the blocks where they are.
func blocks(weight int) int {
	if low := bits.Len(uint(weight)) - 4; low > 0 {
		weight = weight >> low << low
	}
	return (weight*strata + perBlock - 1) / perBlock
}

// place returns the block of a hash and, in its lower 15 bits, the place within it. It grows with the hash.
func (x index) place(h uint64) uint64 {
	at, _ := bits.Mul64(h, uint64(len(x))<<placeBits)
	return at
}

// block returns the block that the point stands in.
func (x index) block(p point) int { return int(x.place(p.hash()) >> placeBits) }

// leastBlocks is how many blocks are worth a goroutine: some 0.1 ms of work.
const leastBlocks = 4096

// build fills the index of points.
func (x index) build(points []point) {
	inParallel(len(x), leastBlocks, func(from, to int) { x.fill(points, from, to) })
}

// derive fills the index of points, which are those of old after the change. Where both have as many blocks, it copies
// those that the change leaves alone.
func (x index) derive(old index, points []point, c change) {
	if len(x) != len(old) {
		x.build(points)
		return
	}
	inParallel(len(x), leastBlocks, func(from, to int) { x.deriveBlocks(old, points, c, from, to) })
	x.fill(points, x.block(points[len(points)-1]), len(x)) // the first point follows the last one
}

// deriveBlocks does so for the blocks from..to-1. A change matters to the blocks back to the point before it, which is in
// the same stratum or in the one before.
func (x index) deriveBlocks(old index, points []point, c change, from, to int) {
	copy(x[from:to], old[from:to])
	for s := x.stratum(from); s <= min(x.stratum(to)+1, strata-1); s++ {
		for _, u := range c.units {
			x.renew(points, u.point(s), from, to)
		}
	}
}

// renew fills those of the blocks from..to-1 to which it matters that changed came or went: the one it stands in and,
// where no point stands before it there, those back to the point before, whose next point it is. The blocks from the last
// point of all on are the caller's.
func (x index) renew(points []point, changed point, from, to int) {
	last := x.block(changed)
	first := last
	if i := x.start(points, last); i == 0 {
		first = 0
	} else if i < len(points) && points[i].cell() >= changed.cell() {
		first = x.block(points[i-1])
	}
	x.fill(points, max(first, from), min(last+1, to))
}

// stratum returns the one that block b begins in.
func (x index) stratum(b int) int { return int(uint64(b) * strata / uint64(len(x))) }

// start returns the index of the first point that stands in block b or after it. It walks from where that would be if
// points were evenly spaced.
func (x index) start(points []point, b int) int {
	i := int(uint64(b) * uint64(len(points)) / uint64(len(x)))
	for i > 0 && x.block(points[i-1]) >= b {
		i--
	}
	for i < len(points) && x.block(points[i]) < b {
		i++
	}
	return i
}

// fill fills the blocks from..to-1.
func (x index) fill(points []point, from, to int) {
	if from >= to {
		return
	}
	i := x.start(points, from)
	for b := from; b < to; b++ {
		var window *[lanes]point
		if rest := points[i:]; len(rest) >= lanes {
			window = (*[lanes]point)(rest)
		} else {
			// The first points follow the last ones. They stand before the block, which does not take them for its own.
			window = new([lanes]point)
			copy(window[copy(window[:], rest):], points)
		}
		i += x.fillBlock(b, window)
		for i < len(points) && x.block(points[i]) == b {
			i++ // beyond the lanes
		}
	}
}

// fillBlock fills block b from the points that stand in it or, once those end, after it, and returns how many of them
// stand in it. It has no branch that depends on a point.
func (x index) fillBlock(b int, window *[lanes]point) int {
	k := &x[b]
	start := uint64(b) << placeBits
	n := uint64(lanes)
	for l := 0; l < lanes; l += 4 {
		w := (*[4]point)(window[l:])
		o := (*[4]uint16)(k.owners[l:])
		o[0], o[1], o[2], o[3] = w[0].owner(), w[1].owner(), w[2].owner(), w[3].owner()
		p0, out0 := within(x.place(w[0].hash()) - start)
		p1, out1 := within(x.place(w[1].hash()) - start)
		p2, out2 := within(x.place(w[2].hash()) - start)
		p3, out3 := within(x.place(w[3].hash()) - start)
		k.places[l/4] = p0 | p1<<16 | p2<<32 | p3<<48
		n -= out0 + out1 + out2 + out3
	}
	return int(n)
}

// within returns the place, or lastPlace and 1 where it is in another block.
func within(place uint64) (within, out uint64) {
	_, out = bits.Sub64(lastPlace, place, 0)
	return min(place, lastPlace), out
}

// lookup returns the number of the owner of a hash whose lower 16 bits are 0, or false where the block cannot tell: the
// hash shares its place with a point, or comes after all of the lanes.
//
// It compares four lanes at a time, without a branch: in each lane, with the free bit set on one side, a-b keeps that bit
// exactly if a >= b and borrows nothing from its neighbour.
func (x index) lookup(h uint64) (owner uint16, ok bool) {
	at := x.place(h)
	k := &x[at>>placeBits]
	place := at & lastPlace
	v := place * each
	g0, g1 := ((k.places[0]|tops)-v)&tops, ((k.places[1]|tops)-v)&tops // point >= hash
	g2, g3 := ((k.places[2]|tops)-v)&tops, ((k.places[3]|tops)-v)&tops
	// Of each lane the bit is added up: at most 4 in each, and 16 in the upper lane of the product.
	after := (g0>>placeBits + g1>>placeBits + g2>>placeBits + g3>>placeBits) * each >> 48
	lane := (lanes - after) % lanes
	if after == 0 || k.place(lane) == place {
		return 0, false
	}
	return k.owners[lane], true
}

// place returns the place in a lane.
func (k *block) place(lane uint64) uint64 { return k.places[lane/4] >> (lane % 4 * 16) & lastPlace }
