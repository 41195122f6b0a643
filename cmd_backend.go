package main

import (
	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/chat"
)

func newBackend(g *global) *cobra.Command {
	var f settingFlags
	cmd := &cobra.Command{
		Use:   "backend",
		Short: "Run the reference backend: a small real chat, and /echo",
		Example: `  selvedge backend --id b1 --consul 127.0.0.1:8500
  selvedge backend --id b2 --listen 127.0.0.1:9001 --rpc 127.0.0.1:9101`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			settings, err := f.load(cmd)
			if err != nil {
				return err
			}
			cfg, err := backend.FromSettings(settings, log)
			if err != nil {
				return usage(err)
			}
			b, err := chat.New(cfg)
			if err != nil {
				return usage(err)
			}
			return b.Run(cmd.Context())
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
	f.add(flags, "service", "backend.service", "`NAME` of the service (default default)")
	f.add(flags, "weight", "backend.weight", "`N` times a member's share of users, 1 to 1000 (default 1)")
	f.addMembership(flags)
	f.add(flags, "state-dir", "state_dir", "`DIRECTORY` for what must be known after a restart")
	f.add(flags, "drain-timeout", "drain_timeout", "how long sessions may take to move away after SIGTERM, a `DURATION` (default 60s)")
	return cmd
}
