//go:build unix && !linux

package tunnel

import "errors"

// MaxPipes is the most pipes a relay has open: none without splice(2). All engines copy.
const MaxPipes = 0

func (s *shard) borrowPipe() *backlog { return nil }

func (s *shard) closePipe(*backlog) {}

func (b *backlog) spliceFrom(int) (int, error) { return 0, errors.ErrUnsupported }

func (b *backlog) spliceTo(int) (int, error) { return 0, errors.ErrUnsupported }
