package tunnel

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// MaxPipes is the most pipes a relay has open, idle ones included, with two descriptors each. The kernel gives an
// unprivileged user about 1,024 of default size before it shrinks new ones (pipe-user-pages-soft in pipe(7)); a quarter of
// that leaves room for other processes. Directions that find none copy.
const MaxPipes = 256

// borrowPipe returns an empty backlog with a pipe, nil if there is none to be had.
func (s *shard) borrowPipe() *backlog {
	if n := len(s.pipes); n > 0 {
		b := s.pipes[n-1]
		s.pipes = s.pipes[:n-1]
		return b
	}
	if s.relay.pipes.Add(1) > MaxPipes {
		s.relay.pipes.Add(-1)
		return nil
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		s.relay.pipes.Add(-1) // out of descriptors or memory: copying needs neither
		return nil
	}
	return &backlog{pipe: [2]int32{int32(p[0]), int32(p[1])}}
}

func (s *shard) closePipe(b *backlog) {
	_ = unix.Close(int(b.pipe[0]))
	_ = unix.Close(int(b.pipe[1]))
	s.relay.pipes.Add(-1)
}

// spliceFrom moves up to wakeBudget bytes from a socket into the pipe, which is empty: ErrAgain therefore means that the
// socket is.
func (b *backlog) spliceFrom(fd int) (int, error) {
	n, err := splice(fd, int(b.pipe[1]), wakeBudget)
	b.piped += n
	return n, err
}

// spliceTo moves bytes from the pipe into a socket.
func (b *backlog) spliceTo(fd int) (int, error) {
	n, err := splice(int(b.pipe[0]), fd, b.piped)
	b.piped -= n
	return n, err
}

// splice makes one call, io.EOF if it moved nothing. Both descriptors are non-blocking, so it goes past Go's scheduler like
// reactor.Read.
func splice(from, to, size int) (int, error) {
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(size),
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch {
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			return 0, reactor.ErrAgain
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}
