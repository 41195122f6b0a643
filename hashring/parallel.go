package hashring

import (
	"runtime"
	"sync"
)

// inParallel cuts 0..n-1 into one range for each processor, none shorter than least, does all of them and returns.
// Building a ring is much work that falls into independent pieces, and whoever builds one waits for it.
func inParallel(n, least int, do func(from, to int)) {
	parts := max(1, min(n/max(1, least), runtime.GOMAXPROCS(0)))
	var wg sync.WaitGroup
	for i := 1; i < parts; i++ {
		wg.Go(func() { do(n*i/parts, n*(i+1)/parts) })
	}
	do(0, n/parts)
	wg.Wait()
}
