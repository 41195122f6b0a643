//go:build !unix

package edge

// descriptorLimit is how many descriptors this process may have; 0: unknown.
func descriptorLimit() uint64 { return 0 }
