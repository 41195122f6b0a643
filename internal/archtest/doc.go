// Package archtest holds the architecture's rules as tests: who may import whom, and one doc comment for each package. The rules
// stand in one table, in imports_test.go; a new room of the house gets a line there.
package archtest
