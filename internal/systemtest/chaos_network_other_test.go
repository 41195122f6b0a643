//go:build !linux

package systemtest

import (
	"errors"
	"testing"
)

// Namespaces are Linux's. Elsewhere the run goes on on loopback, without cuts.

const (
	insideVariable = "SELVEDGE_TEST_INSIDE"
	lanConsul      = ""
)

type lan struct{}

var errNoNamespaces = errors.New("network namespaces are Linux's")

func inNamespaces(*testing.T) error   { return errNoNamespaces }
func newLAN(*testing.T) (*lan, error) { return nil, errNoNamespaces }
func (*lan) host() *host              { panic(errNoNamespaces) }
func (*lan) cut(string, string)       { panic(errNoNamespaces) }
func (*lan) heal(string, string)      { panic(errNoNamespaces) }
