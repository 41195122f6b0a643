package hashring

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

var emptyDigest = digest(hasher{}, nil)

// digest hashes all that decides an owner: the version of the algorithm (in digestDomain), the number of points, the
// secret's fingerprint, and the members, which are sorted. Each field has a length, so that no two rings read alike.
func digest(h hasher, members []Member) string {
	b := binary.BigEndian.AppendUint32([]byte(digestDomain), strata)
	fingerprint := h.fingerprint()
	b = append(b, fingerprint[:]...)
	for _, m := range members {
		b = binary.BigEndian.AppendUint32(b, uint32(len(m.ID)))
		b = append(b, m.ID...)
		b = binary.BigEndian.AppendUint32(b, uint32(m.Weight))
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:8])
}
