// Package testkit holds what tests of several packages need: a real Consul server that can be stopped, started and wiped,
// free ports, lists of metrics, and waiting for a condition instead of sleeping.
//
//	consul := testkit.StartConsul(t)
//	consul.Stop() // as a crash would
//	consul.Wipe() // and its data are gone
//	consul.Start()
//	testkit.Eventually(t, 5*time.Second, func() bool { return view.Snapshot().Ring.Len() == 3 }, "three members")
//
// Only tests import it. What it starts ends with the test, also where the test binary is killed (on Linux).
//
// The Consul server is the one on PATH, else bin/consul of the checkout, else it is built once from the version that
// internal/tools pins, which takes minutes: `make test` builds it beforehand.
package testkit
