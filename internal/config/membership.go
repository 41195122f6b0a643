package config

import (
	"fmt"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
)

// Membership says where members are found; without any setting it is the Consul that Consul's own environment variables name.
func (s *Settings) Membership() (discovery.Membership, error) {
	m := discovery.Membership{Backends: s.Backends, Registry: s.Registry}
	thresholds, err := s.panicThresholds()
	if err != nil {
		return m, err
	}
	if s.Consul == nil && s.Backends == "" && s.Registry == "" {
		m.Consul = &discovery.ConsulConfig{PanicThreshold: thresholds}
	}
	if s.Consul != nil {
		token, err := s.Token("consul.token_file", s.Consul.TokenFile)
		if err != nil {
			return m, err
		}
		m.Consul = &discovery.ConsulConfig{
			Addr: s.Consul.Addr, Token: token, Datacenter: s.Consul.Datacenter, Tag: s.Consul.Tag, Stale: s.Consul.Stale,
			PanicThreshold: thresholds,
		}
	}
	return m, nil
}

// panicThresholds are those that are set, by service.
func (s *Settings) panicThresholds() (map[string]float64, error) {
	thresholds := make(map[string]float64)
	for name, v := range s.Services {
		if v.PanicThreshold == nil {
			continue
		}
		if !(*v.PanicThreshold >= 0 && *v.PanicThreshold <= 1) { // NaN, too
			return nil, s.Wrong("services."+name+".panic_threshold", fmt.Sprintf("%v: want a share of the members, 0 (off) to 1", *v.PanicThreshold))
		}
		thresholds[name] = *v.PanicThreshold
	}
	return thresholds, nil
}

// Token reads the token file that stands under key; an empty path is no token.
func (s *Settings) Token(key, path string) (string, error) {
	token, err := admin.ReadToken(path)
	if err != nil {
		return "", s.Wrong(key, err.Error())
	}
	return token, nil
}
