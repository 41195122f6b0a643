package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
)

// settingFlags are the flags that stand for keys of the configuration: a flag that is given wins over file and environment.
type settingFlags struct {
	file string
	keys map[string]func(value string) map[string]any // by flag
}

func (f *settingFlags) bind(flags *pflag.FlagSet) {
	f.keys = make(map[string]func(string) map[string]any)
	flags.StringVar(&f.file, "config", "", "configuration `FILE` (YAML)")
}

// add makes a flag of the key.
func (f *settingFlags) add(flags *pflag.FlagSet, name, key, help string) {
	flags.String(name, "", help)
	f.keys[name] = func(value string) map[string]any { return map[string]any{key: value} }
}

// addMembership makes the flags that say where members are found.
func (f *settingFlags) addMembership(flags *pflag.FlagSet) {
	f.add(flags, "consul", "consul.addr", "`ADDRESS` of Consul's HTTP API (default: CONSUL_HTTP_ADDR, else 127.0.0.1:8500)")
	f.add(flags, "backends", "backends", "`LIST` of members instead of Consul: ID=HOST:PORT[/RPCPORT][*WEIGHT],...")
	f.add(flags, "registry", "registry", "`FILE` of members instead of Consul, watched")
}

// load reads file, environment and the flags given.
func (f *settingFlags) load(cmd *cobra.Command) (*config.Settings, error) {
	given := make(map[string]any)
	cmd.Flags().Visit(func(flag *pflag.Flag) {
		if keys := f.keys[flag.Name]; keys != nil {
			for key, value := range keys(flag.Value.String()) {
				given[key] = value
			}
		}
	})
	settings, err := config.Load(config.Sources{File: f.file, Flags: given})
	return settings, usage(err)
}

// reach says how a command reaches the members: through one process, or by finding them itself.
type reach struct {
	via, consul, backends, registry, service, tokenFile, ringSecretFile string
	tls                                                                 sender.TLS

	named func() bool // whether --service is given; nil: no
}

func (r *reach) bind(flags *pflag.FlagSet) {
	flags.StringVar(&r.via, "via", "", "`URL` of any backend's RPC port or an edge's admin port")
	flags.StringVar(&r.consul, "consul", "", "`ADDRESS` of Consul's HTTP API (default: CONSUL_HTTP_ADDR, else 127.0.0.1:8500)")
	flags.StringVar(&r.backends, "backends", "", "`LIST` of members: ID=HOST:PORT[/RPCPORT][*WEIGHT],...")
	flags.StringVar(&r.registry, "registry", "", "`FILE` of members")
	flags.StringVar(&r.service, "service", "default", "`NAME` of the service (with --via by default the only one that is there)")
	r.named = func() bool { return flags.Changed("service") }
	flags.StringVar(&r.tokenFile, "token-file", "", "`FILE` with the push service's token (default: SELVEDGE_TOKEN)")
	flags.StringVar(&r.ringSecretFile, "ring-secret-file", "", "`FILE` with the secret of the service's ring, where it has one")
	flags.StringVar(&r.tls.CA, "tls-ca", "", "`FILE` with those who sign the certificates of what is called (default: the system's); the members speak TLS then")
	flags.StringVar(&r.tls.Cert, "tls-cert", "", "`FILE` with the certificate to show")
	flags.StringVar(&r.tls.Key, "tls-key", "", "`FILE` with its key")
	flags.StringVar(&r.tls.ServerName, "tls-server-name", "", "`NAME` that the certificates of what is called must have (default: the host called)")
	flags.SortFlags = false
}

// ringSecret reads what --ring-secret-file names; nil: the ring has none.
func (r *reach) ringSecret() ([]byte, error) {
	if r.ringSecretFile == "" {
		return nil, nil
	}
	secret, err := config.ReadRingSecret(r.ringSecretFile)
	if err != nil {
		return nil, usage(fmt.Errorf("--ring-secret-file: %w", err))
	}
	return secret, nil
}

// open makes the sender that the flags ask for.
func (r *reach) open(log *zap.Logger) (*sender.Sender, error) {
	cfg := sender.Config{Service: r.service, Logger: log, Token: os.Getenv("SELVEDGE_TOKEN")}
	if r.tokenFile != "" {
		token, err := admin.ReadToken(r.tokenFile)
		if err != nil {
			return nil, usage(fmt.Errorf("--token-file: %w", err))
		}
		cfg.Token = token
	}
	secret, err := r.ringSecret()
	if err != nil {
		return nil, err
	}
	if r.tls != (sender.TLS{}) {
		cfg.TLS = &r.tls
	}
	if r.via != "" {
		if r.consul != "" || r.backends != "" || r.registry != "" {
			return nil, usage(errors.New("--via goes through one process, which knows the members; leave --consul, --backends and --registry out"))
		}
		scheme := "http"
		if cfg.TLS != nil {
			scheme = "https"
		}
		cfg.Via = asURL(scheme, r.via)
		if r.named == nil || !r.named() {
			cfg.Service = ""
		}
	} else {
		cfg.Membership = discovery.Membership{Backends: r.backends, Registry: r.registry}
		if r.consul != "" || r.backends == "" && r.registry == "" {
			cfg.Membership.Consul = &discovery.ConsulConfig{Addr: r.consul}
		}
		if secret != nil {
			cfg.Membership.RingSecrets = &discovery.RingSecrets{r.service: secret}
		}
	}
	s, err := sender.New(cfg)
	return s, usage(err)
}

// asURL takes HOST:PORT for a URL, too.
func asURL(scheme, text string) string {
	if !strings.Contains(text, "://") {
		text = scheme + "://" + text
	}
	return strings.TrimSuffix(text, "/")
}

// call has f use the service that the flags reach, and print what it finds.
func (r *reach) call(cmd *cobra.Command, g *global, f func(s *sender.Sender, out *printer) error) error {
	asJSON, err := g.json()
	if err != nil {
		return err
	}
	log, err := g.logger()
	if err != nil {
		return err
	}
	s, err := r.open(log)
	if err != nil {
		return err
	}
	defer s.Close()
	return r.hinted(f(s, newPrinter(cmd.OutOrStdout(), asJSON)))
}
