//go:build !race

package homing_test

const defaultSeeds = 600
