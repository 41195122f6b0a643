module github.com/selvedge/selvedge/internal/bench/ring

go 1.26.0

require (
	github.com/buraksezer/consistent v0.10.0
	github.com/cespare/xxhash/v2 v2.3.0
	github.com/dgryski/go-jump v0.0.0-20211018200510-ba001c3ffce0
	github.com/dgryski/go-mpchash v0.0.0-20200819201138-7382f34c4cd1
	github.com/lafikl/consistent v0.0.0-20220512074542-bdd3606bfc3e
	github.com/selvedge/selvedge v0.0.0
	github.com/serialx/hashring v0.0.0-20200727003509-22c0c7ab6b1b
)

require (
	github.com/dchest/siphash v1.2.3 // indirect
	github.com/minio/blake2b-simd v0.0.0-20160723061019-3f5f724cb5b1 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
)

replace github.com/selvedge/selvedge => ../../..
