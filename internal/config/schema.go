package config

import _ "embed"

//go:embed schema.json
var schema []byte

// Schema returns the JSON schema (2020-12) of the configuration file, for editors. It is made of Settings, its tags and its comments by
// `go test ./internal/config -run TestSchema -update`.
func Schema() []byte { return schema }
