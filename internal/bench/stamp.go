package bench

import (
	"encoding/binary"
	"fmt"
	"time"
)

// stampBytes is the length of every message that a benchmark sends.
const stampBytes = 128

// stamp is the content of a message: it names itself, so that whoever gets it can tell losses, repeats and strays.
type stamp struct {
	phase uint32        // of the benchmark; messages of a former one are strays
	seq   uint32        // from 0 without a gap in each phase
	user  uint32        // whom it is for
	due   time.Duration // when it should have been sent, by monotonic; 0: its latency does not count
}

func (s stamp) encode() []byte {
	b := make([]byte, 0, stampBytes)
	b = binary.BigEndian.AppendUint32(b, s.phase)
	b = binary.BigEndian.AppendUint32(b, s.seq)
	b = binary.BigEndian.AppendUint32(b, s.user)
	b = binary.BigEndian.AppendUint64(b, uint64(s.due))
	for len(b) < stampBytes {
		b = append(b, byte(s.seq)+byte(len(b))) // not zeros: a cut or mixed-up message must show
	}
	return b
}

func decodeStamp(b []byte) (stamp, error) {
	if len(b) != stampBytes {
		return stamp{}, fmt.Errorf("a message of %d bytes instead of %d", len(b), stampBytes)
	}
	s := stamp{
		phase: binary.BigEndian.Uint32(b),
		seq:   binary.BigEndian.Uint32(b[4:]),
		user:  binary.BigEndian.Uint32(b[8:]),
		due:   time.Duration(binary.BigEndian.Uint64(b[12:])),
	}
	for i, c := range b[20:] {
		if c != byte(s.seq)+byte(20+i) {
			return stamp{}, fmt.Errorf("message %d was changed at byte %d", s.seq, 20+i)
		}
	}
	return s, nil
}

func userName(n int) string { return fmt.Sprintf("user-%d", n) }
