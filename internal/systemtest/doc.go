// Package systemtest runs the real binary with a real Consul server and real clients, kills and restarts what can be killed, and judges
// by what the clients saw. Everything is in its tests:
//
//	selvedge_test.go  one process of the binary: started, watched, killed
//	cluster_test.go   Consul, backends and edges together
//	device_test.go    users' WebSockets, which reconnect at once and log what they got
//	node_test.go      programs in testdata/js, which do the same with clients in JavaScript
//
// The chaos run has a larger cast:
//
//	chaos_judge_test.go    a pure function that holds what senders were told against what clients saw
//	chaos_clients_test.go  the clients, which log for it, and chaos_senders_test.go the senders
//	chaos_world_test.go    Consul, backends and edges, each on a host of its own
//	chaos_events_test.go   what happens to them
//	chaos_host_test.go     hosts, and chaos_network_linux_test.go the network between them, which can be cut
//	chaos_report_test.go   the figures
//
// Processes choose their ports; nothing outside loopback, or namespaces of the test's own, is touched.
package systemtest
