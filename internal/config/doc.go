// Package config reads the settings of an edge, a backend or a bridge: a YAML file, the environment over it, flags over both, and makes the
// typed configurations of the packages edge, backend and bridge of them.
//
//	settings, err := config.Load(config.Sources{File: "edge.yaml", Flags: map[string]any{"engine": "copy"}})
//	cfg, err := edge.FromSettings(settings, log)
//
// Environment: SELVEDGE_ and the key in capitals, with __ between the levels: SELVEDGE_ADMIN__ADDR is admin.addr. Only single values can be
// given that way, and variables that name no key are left alone, since orchestrators set some of their own.
//
// A [Reloader] has a running process take over what changes: on SIGHUP, and when a file does.
//
// An [Error] says which file, line and key is wrong and what would be right.
package config
