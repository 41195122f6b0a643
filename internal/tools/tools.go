//go:build tools

// Package tools pins what the tests run and is built from source: the Consul server. It is a module of its own, so that Consul's
// dependencies never meet the product's, and apart from internal/tools/lint, whose linters and generators want newer versions
// of what Consul is built with.
//
//	go build -C internal/tools -o ../../bin/consul github.com/hashicorp/consul
//	go build -C internal/tools/lint -o ../../../bin/ tool
package tools

import (
	_ "github.com/hashicorp/consul"
)
