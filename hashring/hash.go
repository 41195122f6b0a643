package hashring

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/cespare/xxhash/v2"
)

// gamma is the step of SplitMix64, 2^64 divided by the golden ratio.
const gamma = 0x9e3779b97f4a7c15

// mix is the output function of SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators",
// OOPSLA 2014): a bijection of which each output bit depends on each input bit.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// idHash seeds the points of a member. It never takes the secret: member IDs come from the operator.
func idHash(id string) uint64 { return xxhash.Sum64String(id) }

// hasher hashes keys. The zero hasher has no secret.
type hasher struct {
	keyed  bool
	k0, k1 uint64
}

// Domain strings keep the uses of SHA-256 in this package apart. They are part of SPEC.md.
const (
	secretDomain      = "selvedge hashring v1 secret\x00"
	fingerprintDomain = "selvedge hashring v1 fingerprint\x00"
	digestDomain      = "selvedge hashring v1 digest\x00"
)

// keyedHasher derives the SipHash key from a secret of any length.
func keyedHasher(secret []byte) (hasher, error) {
	if len(secret) == 0 {
		return hasher{}, ErrEmptySecret
	}
	sum := sha256.Sum256(append([]byte(secretDomain), secret...))
	return hasher{
		keyed: true,
		k0:    binary.LittleEndian.Uint64(sum[0:]),
		k1:    binary.LittleEndian.Uint64(sum[8:]),
	}, nil
}

func (h hasher) sum(key string) uint64 {
	if h.keyed {
		return sipHash(h.k0, h.k1, key)
	}
	return xxhash.Sum64String(key)
}

// fingerprint names the secret without giving it away; zeroes where there is none.
func (h hasher) fingerprint() (sum [sha256.Size]byte) {
	if h.keyed {
		b := binary.LittleEndian.AppendUint64([]byte(fingerprintDomain), h.k0)
		sum = sha256.Sum256(binary.LittleEndian.AppendUint64(b, h.k1))
	}
	return sum
}
