package main

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/edge"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/systemd"
)

func newEdge(g *global) *cobra.Command {
	var f settingFlags
	var service, key string
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "Run the front door: bring each user to the backend that owns the user",
		Example: `  selvedge edge --consul 127.0.0.1:8500 --service chat --key query:user
  selvedge edge --backends b1=10.0.0.1:9000/9100,b2=10.0.0.2:9000/9100`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			return runEdge(cmd.Context(), log, func() (*config.Settings, edge.Config, error) {
				settings, err := f.load(cmd)
				if err != nil {
					return nil, edge.Config{}, err
				}
				cfg, err := edge.FromSettings(settings, log)
				if service != "" || key != "" {
					if len(cfg.Routes) > 0 {
						err = errors.Join(err, errors.New("--service and --key are for an edge without routes in its configuration: change the routes there"))
					}
					cfg.Routes = []edge.Route{{Service: service, Key: key}}
				}
				return settings, cfg, usage(settings.Locate(err))
			})
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.bind(flags)
	flags.String("listen", "", "`ADDRESS` that clients connect to (default :8080)")
	f.keys["listen"] = func(addr string) map[string]any { return map[string]any{"listen": []any{map[string]any{"addr": addr}}} }
	f.add(flags, "admin", "admin.addr", "`ADDRESS` of the operator's listener (default 127.0.0.1:8081; off: none)")
	flags.StringVar(&service, "service", "", "`NAME` of the service behind this edge (default default)")
	flags.StringVar(&key, "key", "", "`EXPRESSION` that finds the user's id in a request (default query:user)")
	f.addMembership(flags)
	f.add(flags, "engine", "engine", "`ENGINE` that moves bytes: auto, splice or copy (default auto)")
	f.add(flags, "state-dir", "state_dir", "`DIRECTORY` for what must be known after a restart")
	f.add(flags, "drain-timeout", "drain_timeout", "how long sessions may go on after SIGTERM, a `DURATION` (default 60s)")
	return cmd
}

// runEdge runs an edge whose admin port passes pushes on to its services. load reads its configuration, at the start and for each reload.
func runEdge(ctx context.Context, log *zap.Logger, load func() (*config.Settings, edge.Config, error)) error {
	settings, cfg, err := load()
	if err != nil {
		return err
	}
	provider, stop, err := startTracing(settings, "edge", cfg.Name, log)
	if err != nil {
		return err
	}
	defer stop()
	pushes := &pushPorts{tracer: provider}
	cfg.AdminHandler, cfg.Status, cfg.Metrics = pushes, pushes.status, admin.NewRegistry()
	cfg.Metrics.MustRegister(pushes)
	sockets, err := systemd.Sockets()
	if err != nil {
		return usage(err)
	}
	if cfg, err = inherit(cfg, sockets); err != nil {
		return usage(err)
	}
	e, err := edge.New(cfg)
	if err != nil {
		return usage(settings.Locate(err))
	}
	defer pushes.close()
	if err := pushes.open(e, cfg.ServiceNames(), settings); err != nil {
		return usage(err)
	}
	reload := func() (*config.Settings, error) {
		settings, cfg, err := load()
		if err != nil {
			return settings, err
		}
		if err := e.Reload(cfg); err != nil {
			return settings, settings.Locate(err)
		}
		return settings, pushes.open(e, cfg.ServiceNames(), settings)
	}
	reloader, err := config.NewReloader("edge", settings, reload, cfg.Metrics, log)
	if err != nil {
		return err
	}
	reloader.Hangup = func() {
		if err := e.ReopenLogs(); err != nil {
			log.Error("the access log cannot be opened anew; it goes on in the old file", zap.Error(err))
		}
	}
	return reloading(ctx, e, reloader, log)
}

// inherit gives the sockets of systemd to cfg's listeners, in the order of the list: one called admin to the operator's, one called https or http to the
// next with or without TLS, and any other to the next. A listener that gets none opens its own.
func inherit(cfg edge.Config, sockets []systemd.Socket) (edge.Config, error) {
	if len(cfg.Listen) == 0 {
		cfg.Listen = []edge.Listener{{Addr: edge.DefaultAddr}}
	}
	cfg.Listen = slices.Clone(cfg.Listen)
	for _, socket := range sockets {
		if socket.Name == "admin" && cfg.Admin.Inherited == nil {
			cfg.Admin.Inherited = socket.Listener
			continue
		}
		i := slices.IndexFunc(cfg.Listen, func(l edge.Listener) bool {
			fits := socket.Name != "https" && socket.Name != "http" || (socket.Name == "https") == (l.TLS != nil)
			return l.Inherited == nil && fits
		})
		if i < 0 {
			return cfg, fmt.Errorf("systemd hands over a socket called %s at %v that no listener is left for; add one to listen", socket.Name, socket.Listener.Addr())
		}
		cfg.Listen[i].Inherited = socket.Listener
	}
	return cfg, nil
}
