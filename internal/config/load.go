package config

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"
)

// Sources are where settings come from; later ones win.
type Sources struct {
	File  string         // path; "": none
	Env   []string       // KEY=VALUE, as os.Environ gives them; nil: that
	Flags map[string]any // by dotted key
}

// Load reads the settings. The error is an [*Error], or that of reading the file.
func Load(from Sources) (*Settings, error) {
	k := koanf.New(".")
	s := &Settings{file: from.File, seen: make(map[string]content)}
	if from.File != "" {
		text, err := os.ReadFile(from.File)
		if err != nil {
			return nil, fmt.Errorf("config: %w", err)
		}
		s.seen[from.File] = sha256.Sum256(text)
		if err := parse(from.File, text, &s.document); err != nil {
			return nil, err
		}
		if err := k.Load(rawbytes.Provider(text), yaml.Parser()); err != nil {
			return nil, &Error{File: from.File, Text: err.Error()}
		}
	}
	if err := k.Load(environment(from.Env), nil); err != nil {
		return nil, &Error{Text: err.Error()}
	}
	if err := k.Load(confmap.Provider(from.Flags, "."), nil); err != nil {
		return nil, &Error{Text: err.Error()}
	}
	err := k.UnmarshalWithConf("", s, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result:           s,
		TagName:          "koanf",
		WeaklyTypedInput: true, // the environment gives text
		DecodeHook:       mapstructure.StringToTimeDurationHookFunc(),
	}})
	if err != nil {
		return nil, decodeError(s, err)
	}
	s.has = k.Exists
	s.refer(reflect.ValueOf(s))
	return s, nil
}

// parse reads the document for what koanf does not keep: lines, and keys that mean nothing.
func parse(file string, text []byte, document *yamlv3.Node) error {
	if err := yamlv3.Unmarshal(text, document); err != nil {
		return &Error{File: file, Text: strings.TrimPrefix(err.Error(), "yaml: ")}
	}
	if document.Kind == 0 {
		return nil // empty
	}
	return checkKeys(file, document, reflect.TypeFor[Settings](), "")
}

// environment picks the variables that name a key with a single value.
func environment(environ []string) *env.Env {
	known := scalars(reflect.TypeFor[Settings](), "")
	return env.Provider(".", env.Opt{
		Prefix: "SELVEDGE_",
		EnvironFunc: func() []string {
			if environ == nil {
				return os.Environ()
			}
			return environ
		},
		TransformFunc: func(name, value string) (string, any) {
			key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, "SELVEDGE_")), "__", ".")
			if !slices.Contains(known, key) {
				return "", nil
			}
			return key, value
		},
	})
}

var quotedKey = regexp.MustCompile(`'([^']+)'`)

// decodeError names the key, and where it stands in the file, of a value of the wrong kind.
func decodeError(s *Settings, err error) error {
	text := err.Error()
	var several interface{ Unwrap() []error }
	if errors.As(err, &several) && len(several.Unwrap()) > 0 {
		text = several.Unwrap()[0].Error()
	}
	m := quotedKey.FindStringSubmatch(text)
	if m == nil {
		return &Error{Text: text}
	}
	return s.Wrong(m[1], strings.TrimSpace(strings.Replace(text, "'"+m[1]+"'", "", 1)))
}
