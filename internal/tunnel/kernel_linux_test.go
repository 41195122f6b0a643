package tunnel

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/selvedge/selvedge/internal/reactor"
)

// TestUrgentMark sends plain bytes around an urgent one. The kernel stops a read at the mark, which must not be taken for
// an empty queue.
func TestUrgentMark(t *testing.T) {
	inEachMode(t, 1, Config{}, func(t *testing.T, r *rig) {
		if r.tls[client] {
			return // TLS has no urgent bytes
		}
		j := r.join(t, early{})
		say(t, j.client, "x")
		expect(t, j.backend, "x")
		raw, err := j.client.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		err = raw.Control(func(fd uintptr) {
			release := make(chan struct{})
			if !r.userland { // let all of it gather before the loop looks
				r.relay.shards[0].loop.Post(func() { <-release })
			}
			for _, part := range []struct {
				text  string
				flags int
			}{{"before", 0}, {"!", unix.MSG_OOB}, {"after", 0}} {
				if err := unix.Sendto(int(fd), []byte(part.text), part.flags, nil); err != nil {
					t.Error(err)
				}
			}
			close(release)
		})
		if err != nil {
			t.Fatal(err)
		}
		expect(t, j.backend, "beforeafter") // the urgent byte itself is not part of the stream
		j.end(t)
	})
}

func TestSocketOptions(t *testing.T) {
	tests := map[string]struct {
		cfg                             Config
		idle, interval, count, userTime int
	}{
		"defaults":        {Config{}, 60, 20, 0, 120_000},
		"own":             {Config{KeepAlive: 10 * time.Second, UserTimeout: 5 * time.Second}, 10, 4, 0, 5000},
		"no user timeout": {Config{UserTimeout: -1}, 60, 20, 3, 0},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inMode(t, plain, 1, tt.cfg, func(t *testing.T, r *rig) {
				j := r.join(t, early{})
				say(t, j.client, "x")
				expect(t, j.backend, "x") // open by now
				r.onLoop(t, 0, func(*shard) {
					for _, e := range j.tunnel.ends {
						for option, want := range map[int]int{unix.TCP_KEEPIDLE: tt.idle, unix.TCP_KEEPINTVL: tt.interval,
							unix.TCP_KEEPCNT: tt.count, unix.TCP_USER_TIMEOUT: tt.userTime, unix.TCP_NODELAY: 1} {
							if option == unix.TCP_KEEPCNT && want == 0 {
								continue // the system's: the kernel goes by the user timeout
							}
							if got, err := unix.GetsockoptInt(int(e.fd), unix.IPPROTO_TCP, option); got != want || err != nil {
								t.Errorf("option %d: %d, %v, want %d", option, got, err, want)
							}
						}
					}
				})
				j.end(t)
			})
		})
	}
}

// unixConns returns the two ends of a connection whose buffers in the kernel are small: some 200 KiB.
func unixConns(t *testing.T) (far, near *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socketpair")
		c, err := net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
	}
	return conns[0], conns[1]
}

// TestOutOfPipes has more slow readers than there are pipes: the rest copy, and every byte arrives.
func TestOutOfPipes(t *testing.T) {
	inMode(t, mode{engine: Splice, reactor: plain.reactor}, 2, Config{}, func(t *testing.T, r *rig) {
		const n, size = MaxPipes + 40, 1 << 20
		type ends struct{ client, backend *net.UnixConn }
		all := make([]ends, n)
		var writers, readers sync.WaitGroup
		for i := range all {
			farClient, nearClient := unixConns(t)
			farBackend, nearBackend := unixConns(t)
			all[i] = ends{farClient, farBackend}
			if _, err := r.relay.Join(End{Conn: nearClient}, End{Conn: nearBackend}, nil); err != nil {
				t.Fatal(err)
			}
			writers.Go(func() {
				_ = farBackend.SetWriteDeadline(time.Now().Add(patience))
				if _, err := farBackend.Write(make([]byte, size)); err != nil {
					t.Errorf("write: %v", err)
				}
				_ = farBackend.CloseWrite()
			})
		}
		eventually(t, "all tunnels full, some in memory", func() bool {
			stuck, inMemory := 0, 0
			for i := range r.relay.shards {
				r.onLoop(t, i, func(s *shard) {
					for _, tunnel := range s.tunnels() {
						if f := &tunnel.flows[backend]; f.backlog != nil && !tunnel.ends[client].writable {
							stuck++
							inMemory += min(1, len(f.backlog.bytes))
						}
					}
				})
			}
			return stuck == n && inMemory >= n-MaxPipes
		})
		if pipes := r.relay.pipes.Load(); pipes != MaxPipes {
			t.Errorf("%d pipes, want %d", pipes, MaxPipes)
		}
		for _, e := range all {
			readers.Go(func() {
				_ = e.client.SetReadDeadline(time.Now().Add(patience))
				if got, err := io.Copy(io.Discard, e.client); got != size || err != nil {
					t.Errorf("%d of %d bytes, %v", got, size, err)
				}
			})
		}
		writers.Wait()
		readers.Wait()
		for _, e := range all {
			_ = e.client.Close()
			_ = e.backend.Close()
		}
		eventually(t, "all ended", func() bool { return r.relay.Len() == 0 })
		if kept := r.relay.pipes.Load(); kept > int32(keepSpare*len(r.relay.shards)) {
			t.Errorf("%d pipes kept by an idle relay", kept)
		}
	})
}

// TestJoinOutOfDescriptors takes the descriptors away: Join fails with the kernel's error, and both connections are closed.
func TestJoinOutOfDescriptors(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		farClient, nearClient := tcpConns(t)
		farBackend, nearBackend := tcpConns(t)
		err := withoutDescriptors(t, func() error {
			_, err := r.relay.Join(End{Conn: nearClient}, End{Conn: nearBackend}, func(Summary) { t.Error("onClose of a failed Join") })
			return err
		})
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("Join with no descriptor left: %v, want EMFILE", err)
		}
		expectError(t, farClient, io.EOF)
		expectError(t, farBackend, io.EOF)
		for _, c := range []net.Conn{nearClient, nearBackend} {
			if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
				t.Errorf("the connection given to Join: %v, want it closed", err)
			}
		}
		if r.relay.Len() != 0 {
			t.Errorf("%d tunnels", r.relay.Len())
		}
		_ = farClient.Close()
		_ = farBackend.Close()
	})
}

// withoutDescriptors runs f while no more descriptors can be had.
func withoutDescriptors(t *testing.T, f func() error) error {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	next, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0) // the lowest free number: the limit is on numbers
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(next)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next), Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	return f()
}

// TestReusedDescriptors runs many short tunnels at once on one loop, so that the numbers of their sockets are reused while
// events are under way. Each has words of its own.
func TestReusedDescriptors(t *testing.T) {
	for _, m := range modes[:4] {
		t.Run(m.name, func(t *testing.T) {
			inMode(t, m, 1, Config{}, func(t *testing.T, r *rig) {
				var wg sync.WaitGroup
				for w := range 8 {
					wg.Go(func() {
						for i := range 40 {
							word := string([]byte{'a' + byte(w), 'a' + byte(i%26)})
							j := r.join(t, early{fromClient: []byte(word)})
							say(t, j.backend, word)
							expect(t, j.backend, word)
							expect(t, j.client, word)
							if i%2 == 0 {
								_ = j.client.SetLinger(0)
							}
							_ = j.client.Close()
							_ = j.backend.Close()
						}
					})
				}
				wg.Wait()
				eventually(t, "all ended", func() bool { return r.relay.Len() == 0 })
			})
		})
	}
}

// What a prepared listening socket accepts has the options of a tunnel's sockets, with one system call of its own.
func TestPreparedListener(t *testing.T) {
	inMode(t, plain, 1, Config{}, func(t *testing.T, r *rig) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := ln.Addr().String()
		listener, err := reactor.DetachListener(ln.(*net.TCPListener))
		if err != nil {
			t.Fatal(err)
		}
		defer reactor.Close(listener)
		r.relay.Prepare(listener)
		far, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		fd, _, err := reactor.Accept(listener)
		if err != nil {
			t.Fatal(err)
		}
		defer reactor.Close(fd)
		setRest(fd, &r.relay.cfg)
		for option, want := range map[int]int{unix.TCP_KEEPIDLE: 60, unix.TCP_KEEPINTVL: 20,
			unix.TCP_USER_TIMEOUT: 120_000, unix.TCP_NODELAY: 1} {
			if got, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, option); got != want || err != nil {
				t.Errorf("option %d: %d, %v, want %d", option, got, err, want)
			}
		}
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on != 1 || err != nil {
			t.Errorf("SO_KEEPALIVE %d, %v", on, err)
		}
	})
}
