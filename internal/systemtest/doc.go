// Package systemtest runs the real binary with a real Consul server and real clients, kills and restarts what can be killed, and judges
// by what the clients saw. Everything is in its tests:
//
//	selvedge_test.go  one process of the binary: started, watched, killed
//	cluster_test.go   Consul, backends and edges together
//	device_test.go    users' WebSockets, which reconnect at once and log what they got
//
// Processes choose their ports; nothing outside loopback is touched.
package systemtest
