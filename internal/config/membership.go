package config

import (
	"bytes"
	"fmt"
	"os"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/discovery"
)

// Membership says where members are found; without any setting it is the Consul that Consul's own environment variables name.
func (s *Settings) Membership() (discovery.Membership, error) {
	m := discovery.Membership{Backends: s.Backends, Registry: s.Registry}
	var err error
	if m.RingSecrets, err = s.ringSecrets(); err != nil {
		return m, err
	}
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

// leastRingSecret is the length of a secret that cannot be guessed from rings' digests, in bytes.
const leastRingSecret = 16

// ringSecrets are those that are set, by service.
func (s *Settings) ringSecrets() (*discovery.RingSecrets, error) {
	var secrets discovery.RingSecrets
	for name, v := range s.Services {
		if v.RingSecretFile == "" {
			continue
		}
		secret, err := ReadRingSecret(v.RingSecretFile)
		if err != nil {
			return nil, s.Wrong("services."+name+".ring_secret_file", err.Error())
		}
		if secrets == nil {
			secrets = make(discovery.RingSecrets)
		}
		secrets[name] = secret
	}
	if secrets == nil {
		return nil, nil
	}
	return &secrets, nil
}

// ReadRingSecret reads the secret of a service's ring: the bytes of the file but for white space around them.
func ReadRingSecret(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if text = bytes.TrimSpace(text); len(text) < leastRingSecret {
		return nil, fmt.Errorf("the secret has %d bytes; want %d or more, such as `openssl rand -hex 32` writes", len(text), leastRingSecret)
	}
	return text, nil
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
