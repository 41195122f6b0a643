//go:build race

package homing_test

// With the race detector a world takes about eight times as long.
const defaultSeeds = 240
