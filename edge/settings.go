package edge

import (
	"net/netip"
	"slices"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
)

// FromSettings makes a Config of what file, environment and flags say. It opens nothing but token files.
func FromSettings(s *config.Settings, log *zap.Logger) (Config, error) {
	membership, err := s.Membership()
	if err != nil {
		return Config{}, err
	}
	cfg := Config{
		Membership: membership, Engine: s.Engine, DrainDelay: s.DrainDelay, DrainTimeout: s.DrainTimeout, HeaderBytes: s.Limits.HeaderBytes,
		Sessions: s.Limits.Sessions, Name: s.Name, StateDir: s.StateDir, Logger: log,
		IdleTimeout: s.Limits.IdleTimeout,
		Admission: Admission{
			PerUser: s.Limits.PerUser, PerAddress: s.Limits.PerIP, UpgradesPerSecond: s.Limits.UpgradesPerSecond, Origins: s.Limits.Origins,
		},
		Admin:     Admin{Addr: s.Admin.Addr},
		AccessLog: AccessLog{Path: s.AccessLog.Path, Sample: s.AccessLog.Sample},
		Services:  make(map[string]ServiceConfig),
	}
	if t := s.Admin.TLS; !t.Empty() {
		cfg.Admin.TLS = &TLS{Certs: []Cert{{t.Cert, t.Key}}, ClientCA: t.ClientCA}
	}
	if cfg.Admin.Token, err = s.Token("admin.token_file", s.Admin.TokenFile); err != nil {
		return cfg, err
	}
	cfg.Auth = Auth{JWKS: s.Auth.JWKS, Issuer: s.Auth.Issuer, Audience: s.Auth.Audience, Algorithms: s.Auth.Algorithms, Token: s.Auth.Token}
	if end := s.Auth.EndSessionAtExpiry; end != nil {
		cfg.Auth.OutlivesToken = !*end
	}
	for _, l := range s.Listen {
		listener := Listener{Addr: l.Addr, ProxyProtocol: l.ProxyProtocol, RedirectHTTPS: l.RedirectHTTPS}
		if !l.TLS.Empty() {
			listener.TLS = &TLS{ClientCA: l.TLS.ClientCA, TicketKeys: l.TLS.TicketKeys}
			for _, c := range l.TLS.Certs {
				listener.TLS.Certs = append(listener.TLS.Certs, Cert(c))
			}
		}
		cfg.Listen = append(cfg.Listen, listener)
	}
	for _, r := range s.Routes {
		cfg.Routes = append(cfg.Routes, Route{
			Host: r.Host, Path: r.Path, Service: r.Service, Key: r.Key, Timeout: r.Timeout, BodyBytes: r.BodyBytes,
			RequestFields: FieldRules(r.RequestHeaders), ResponseFields: FieldRules(r.ResponseHeaders),
		})
	}
	for name, v := range s.Services {
		var sources []netip.Addr
		for _, text := range v.SourceAddresses {
			addr, err := netip.ParseAddr(text)
			if err != nil {
				return cfg, s.Wrong("services."+name+".source_addresses", text+": want an address of this host, such as 10.0.0.7")
			}
			sources = append(sources, addr)
		}
		threshold := 0.0
		if v.PanicThreshold != nil {
			if threshold = *v.PanicThreshold; threshold == 0 {
				threshold = -1
			}
		}
		cfg.Services[name] = ServiceConfig{
			OnMove: OnMove(v.OnMove), ConnectTimeout: v.ConnectTimeout, ResponseTimeout: v.ResponseTimeout, Retries: v.Retries,
			EdgeSecretFile:  v.EdgeSecretFile,
			SourceAddresses: sources,
			HealthCheck:     HealthCheck(v.HealthCheck), PanicThreshold: threshold,
			ProxyProtocol: ProxyProtocol(v.ProxyProtocol),
		}
		if v.TLS != nil && *v.TLS != (config.MemberTLS{}) {
			service := cfg.Services[name]
			service.TLS = (*MemberTLS)(v.TLS)
			cfg.Services[name] = service
		}
	}
	for _, list := range []struct {
		key  string
		from []string
		to   *[]netip.Prefix
	}{
		{"trusted_proxies", s.TrustedProxies, &cfg.TrustedProxies},
		{"limits.allow", s.Limits.Allow, &cfg.Admission.Allow},
		{"limits.deny", s.Limits.Deny, &cfg.Admission.Deny},
	} {
		for _, text := range list.from {
			network, err := netip.ParsePrefix(text)
			if addr, addrErr := netip.ParseAddr(text); addrErr == nil {
				network, err = netip.PrefixFrom(addr, addr.BitLen()), nil
			}
			if err != nil {
				return cfg, s.Wrong(list.key, text+": want an address or a network like 10.0.0.0/8")
			}
			*list.to = append(*list.to, network)
		}
	}
	return cfg, nil
}

// ServiceNames lists the services that c's routes name, each once, in the order of the routes.
func (c Config) ServiceNames() []string {
	var names []string
	for _, r := range c.withDefaults().Routes {
		if !slices.Contains(names, r.Service) {
			names = append(names, r.Service)
		}
	}
	return names
}
