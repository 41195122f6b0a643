package testkit

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func TestPoll(t *testing.T) {
	var looks int
	third := func() bool { looks++; return looks == 3 }
	if err := poll(time.Minute, third); err != nil || looks != 3 {
		t.Fatalf("err %v after %d looks, want nil after 3", err, looks)
	}
	want := errors.New("never")
	began := time.Now()
	if err := poll(30*time.Millisecond, func() error { return want }); !errors.Is(err, want) {
		t.Fatalf("err %v, want the last one", err)
	}
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Fatalf("gave up after %v", took)
	}
	if err := poll(0, func() bool { return true }); err != nil {
		t.Fatal("does not look once where no time is given")
	}
}

func TestFreePortsDiffer(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if len(slices.Compact(ports)) != 20 {
		t.Fatalf("%v", ports)
	}
}
