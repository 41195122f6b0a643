package main

import (
	"context"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/chat"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
)

func newBackend(g *global) *cobra.Command {
	var f settingFlags
	cmd := &cobra.Command{
		Use:   "backend",
		Short: "Run the reference backend: a small real chat, and /echo",
		Example: `  selvedge backend --id b1 --listen 127.0.0.1:9000 --consul 127.0.0.1:8500
  selvedge backend --id b2 --listen 127.0.0.1:9001 --rpc 127.0.0.1:9101`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			return runBackend(cmd.Context(), log, func() (*config.Settings, backend.Config, error) {
				settings, err := f.load(cmd)
				if err != nil {
					return nil, backend.Config{}, err
				}
				cfg, err := backend.FromSettings(settings, log)
				return settings, cfg, usage(err)
			})
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.bind(flags)
	f.add(flags, "id", "backend.id", "`ID` on the ring; should survive restarts (default: the host name)")
	f.add(flags, "listen", "backend.listen", "`ADDRESS` that edges connect to (default :9000)")
	f.add(flags, "rpc", "backend.rpc.addr", "`ADDRESS` of the push service; never let clients reach it (default 127.0.0.1:9100)")
	f.add(flags, "admin", "admin.addr", "`ADDRESS` of the operator's listener (default: none)")
	f.add(flags, "advertise", "backend.advertise", "`HOST` under which others reach this backend (default: that of the listeners)")
	f.add(flags, "public-url", "backend.public_url", "`URL` under which clients reach this backend without an edge, ws:// or wss:// (default: none)")
	f.add(flags, "service", "backend.service", "`NAME` of the service (default default)")
	f.add(flags, "weight", "backend.weight", "`N` times a member's share of users, 1 to 1000 (default 1)")
	f.addMembership(flags)
	f.add(flags, "state-dir", "state_dir", "`DIRECTORY` for what must be known after a restart")
	f.add(flags, "drain-timeout", "drain_timeout", "how long sessions may take to move away after SIGTERM, a `DURATION` (default 60s)")
	return cmd
}

// runBackend runs the chat. load reads its configuration, at the start and for each reload.
func runBackend(ctx context.Context, log *zap.Logger, load func() (*config.Settings, backend.Config, error)) error {
	settings, cfg, err := load()
	if err != nil {
		return err
	}
	cfg.Metrics = admin.NewRegistry()
	provider, stop, err := startTracing(settings, "backend", cfg.ID, log)
	if err != nil {
		return err
	}
	defer stop()
	cfg.Tracer = provider
	b, err := chat.New(cfg)
	if err != nil {
		return usage(settings.Locate(err))
	}
	reload := func() (*config.Settings, error) {
		settings, cfg, err := load()
		if err != nil {
			return settings, err
		}
		return settings, settings.Locate(b.Reload(cfg))
	}
	reloader, err := config.NewReloader("backend", settings, reload, cfg.Metrics, log)
	if err != nil {
		return err
	}
	return reloading(ctx, b, reloader, log)
}
