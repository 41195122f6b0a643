package config

import (
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
)

// Membership says where members are found; without any setting it is the Consul that Consul's own environment variables name.
func (s *Settings) Membership() (discovery.Membership, error) {
	m := discovery.Membership{Backends: s.Backends, Registry: s.Registry}
	if s.Consul == nil && s.Backends == "" && s.Registry == "" {
		m.Consul = &discovery.ConsulConfig{}
	}
	if s.Consul != nil {
		token, err := s.Token("consul.token_file", s.Consul.TokenFile)
		if err != nil {
			return m, err
		}
		m.Consul = &discovery.ConsulConfig{
			Addr: s.Consul.Addr, Token: token, Datacenter: s.Consul.Datacenter, Tag: s.Consul.Tag, Stale: s.Consul.Stale,
		}
	}
	return m, nil
}

// Token reads the token file that stands under key; an empty path is no token.
func (s *Settings) Token(key, path string) (string, error) {
	token, err := admin.ReadToken(path)
	if err != nil {
		return "", &Error{File: s.file, Key: key, Text: err.Error()}
	}
	return token, nil
}

// Wrong is an error about a key of these settings.
func (s *Settings) Wrong(key, text string) error { return &Error{File: s.file, Key: key, Text: text} }
