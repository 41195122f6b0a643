package pushlink

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/internal/testkit"
)

// soon is for what takes no time of its own.
const soon = 10 * time.Second

// asked is a push that has come to a member.
type asked struct {
	call   *pushv1.PushCall
	answer func(*pushv1.PushAnswer)
}

func (a asked) ok() {
	a.answer(&pushv1.PushAnswer{Call: a.call.Call, Member: a.call.Push.User, Sessions: 1})
}

// linkToAsked makes a link to a member that hands over what comes, for the test to answer. hangUp ends its connection.
func linkToAsked(t *testing.T) (l *Link, came <-chan asked, hangUp func()) {
	t.Helper()
	calls := make(chan asked, 10)
	hung := make(chan struct{})
	l = linkTo(t, func(ctx context.Context, conn net.Conn, in *bufio.Reader) {
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			select {
			case <-hung:
			case <-ctx.Done():
			}
			cancel()
		}()
		_ = ServeConn(ctx, conn, in, func(_ context.Context, batch []*pushv1.PushCall, answer func(*pushv1.PushAnswer)) error {
			for _, c := range batch {
				calls <- asked{c, answer}
			}
			return nil
		})
	})
	return l, calls, sync.OnceFunc(func() { close(hung) })
}

// begin pushes without waiting for the answer, which end does.
func begin(ctx context.Context, t *testing.T, l *Link, n int) (end func() error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() {
		a, err := l.Push(ctx, push(n, nil))
		if err == nil && a.Member != push(n, nil).User {
			err = errors.New("got the answer for " + a.Member)
		}
		ended <- err
	}()
	return func() error {
		t.Helper()
		return next(t, ended)
	}
}

func next[T any](t *testing.T, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(soon):
		t.Fatal("nothing came")
	}
	return v
}

// reader tells who reads: a call, the link's goroutine ("link"), or nobody.
func (l *Link) reader() any {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.reading.attended:
		return "nobody"
	case l.reading.by == 0:
		return "link"
	}
	return l.reading.by
}

// settle makes one push, after which nobody reads.
func settle(t *testing.T, l *Link, came <-chan asked) {
	t.Helper()
	end := begin(t.Context(), t, l, 0)
	next(t, came).ok()
	if err := end(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, soon, func() bool { return l.reader() == "nobody" }, "nobody to read")
}

// A push that is alone reads its own answer, and that of one that has joined it; who is left is read for.
func TestLonePushReads(t *testing.T) {
	l, came, _ := linkToAsked(t)
	settle(t, l, came)
	first := begin(t.Context(), t, l, 1)
	a := next(t, came)
	if r := l.reader(); r != a.call.Call {
		t.Errorf("%v reads, want the push", r)
	}
	second, third := begin(t.Context(), t, l, 2), begin(t.Context(), t, l, 3)
	b, c := next(t, came), next(t, came)
	b.ok()
	if r := l.reader(); r != a.call.Call {
		t.Errorf("%v reads, want the first push", r)
	}
	ends := map[string]func() error{"2": second, "3": third}
	if err := ends[b.call.Push.User](); err != nil {
		t.Errorf("read for by another: %v", err)
	}
	a.ok()
	if err := first(); err != nil {
		t.Error(err)
	}
	if r := l.reader(); r != "link" {
		t.Errorf("%v reads for the last, want the link", r)
	}
	c.ok()
	if err := ends[c.call.Push.User](); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, soon, func() bool { return l.reader() == "nobody" }, "nobody to read")
	settle(t, l, came)
}

// A push that reads and is given up leaves the others, and the connection, as they were.
func TestReadingPushIsGivenUp(t *testing.T) {
	l, came, _ := linkToAsked(t)
	settle(t, l, came)
	ctx, giveUp := context.WithCancel(t.Context())
	first := begin(ctx, t, l, 1)
	a := next(t, came)
	second := begin(t.Context(), t, l, 2)
	b := next(t, came)
	giveUp()
	if err := first(); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	a.ok() // nobody waits for it any more
	b.ok()
	if err := second(); err != nil {
		t.Error(err)
	}
	testkit.Eventually(t, soon, func() bool { return l.reader() == "nobody" }, "nobody to read")
	settle(t, l, came)
	if l.HasEnded() {
		t.Error("the link has ended")
	}
}

// A deadline that passes in the moment of the answer is not the next push's.
func TestDeadlineIsNotTheNextOnes(t *testing.T) {
	l, came, _ := linkToAsked(t)
	settle(t, l, came)
	for range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		end := begin(ctx, t, l, 1)
		a := next(t, came)
		go cancel()
		a.ok()
		if err := end(); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		end = begin(t.Context(), t, l, 2)
		next(t, came).ok()
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
}

// A connection that ends while nobody reads it is not pushed to.
func TestEndIsSeenBeforeAPush(t *testing.T) {
	l, came, hangUp := linkToAsked(t)
	settle(t, l, came)
	hangUp()
	testkit.Eventually(t, soon, l.HasEnded, "the end to be seen")
	if _, err := l.Push(t.Context(), push(1, nil)); !errors.Is(err, ErrBroken) {
		t.Errorf("%v; want that it broke", err)
	}
}

// One that ends under the push that reads it breaks for all.
func TestEndUnderAReadingPush(t *testing.T) {
	l, came, hangUp := linkToAsked(t)
	settle(t, l, came)
	first := begin(t.Context(), t, l, 1)
	next(t, came)
	second := begin(t.Context(), t, l, 2)
	next(t, came)
	hangUp()
	for _, end := range []func() error{first, second} {
		if err := end(); !errors.Is(err, ErrBroken) {
			t.Errorf("%v; want that it broke", err)
		}
	}
}

// A quiet connection is read by the link, which would find out that the member is gone.
func TestQuietConnectionIsWatched(t *testing.T) {
	l, came, hangUp := linkToAsked(t)
	settle(t, l, came)
	testkit.Eventually(t, soon, func() bool { return l.reader() == "link" }, "the link to read")
	settle(t, l, came)
	hangUp()
	select {
	case <-l.broken:
	case <-time.After(soon):
		t.Error("the link does not see that the member has gone")
	}
}
