package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/chat"
	"github.com/selvedge/selvedge/edge"
	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/discovery"
)

func newDev(g *global) *cobra.Command {
	var d dev
	cmd := &cobra.Command{
		Use:     "dev",
		Short:   "Run an edge and some chat backends in one process, to try it out",
		Long:    "Run an edge, some chat backends and their registry in one process. Nothing has to be installed.",
		Example: `  selvedge dev --members 5`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if d.members < 1 || d.members > 100 {
				return usage(fmt.Errorf("--members %d: want 1 to 100", d.members))
			}
			if !cmd.Flags().Changed("log-level") {
				g.logLevel = "warn" // the banner is what one wants to see
			}
			log, err := g.logger()
			if err != nil {
				return err
			}
			return d.run(cmd.Context(), cmd.OutOrStdout(), log)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&d.listen, "listen", "127.0.0.1:8080", "`ADDRESS` of the edge")
	flags.StringVar(&d.admin, "admin", "127.0.0.1:8081", "`ADDRESS` of the edge's operator's listener")
	flags.IntVar(&d.members, "members", 3, "number of backends, `N`")
	return cmd
}

// dev is a whole cluster in this process.
type dev struct {
	listen, admin string
	members       int
}

// devDrain is short: whoever stops a trial does not want to wait.
const devDrain = 2 * time.Second

func (d dev) run(ctx context.Context, out io.Writer, log *zap.Logger) error {
	registry := discovery.NewMemory()
	var backends []*backend.Backend
	for i := range d.members {
		b, err := chat.New(backend.Config{
			ID: fmt.Sprintf("b%d", i+1), Listen: "127.0.0.1:0", RPC: "127.0.0.1:0",
			Membership:   backend.Membership{Memory: registry},
			DrainTimeout: devDrain, Logger: log,
		})
		if err != nil {
			return err
		}
		backends = append(backends, b)
	}
	cfg := edge.Config{
		Listen: []edge.Listener{{Addr: d.listen}},
		Admin:  edge.Admin{Addr: d.admin},
		Routes: []edge.Route{ // the page belongs to nobody; what it talks to belongs to the user
			{Path: "/", Key: "none"},
			{Path: "/ws"}, {Path: "/echo"}, {Path: "/whoami"},
		},
		Membership: edge.Membership{Memory: registry},
		DrainDelay: -1, DrainTimeout: devDrain, Logger: log,
	}
	pushes := new(pushPorts)
	cfg.AdminHandler, cfg.Status, cfg.Metrics = pushes, pushes.status, admin.NewRegistry()
	cfg.Metrics.MustRegister(pushes)
	e, err := edge.New(cfg)
	if err != nil {
		return usage(err)
	}
	defer pushes.close()
	if err := pushes.open(e, cfg.ServiceNames(), new(config.Settings)); err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	for _, b := range backends {
		group.Go(func() error {
			if err := b.Run(ctx); !errors.Is(err, backend.ErrDrainTimeout) {
				return err
			}
			return nil
		})
	}
	group.Go(func() error { return e.Run(ctx) })
	group.Go(func() error {
		for _, b := range backends {
			select {
			case <-b.Ready():
			case <-ctx.Done():
				return nil
			}
		}
		select {
		case <-e.Ready():
		case <-ctx.Done():
			return nil
		}
		for tick := time.NewTicker(10 * time.Millisecond); e.View(edge.DefaultService).Snapshot().Ring.Len() < len(backends); { // else who comes now is moved at once
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil
			}
		}
		d.banner(out, e, backends)
		return nil
	})
	return group.Wait()
}

// banner says where to look.
func (d dev) banner(out io.Writer, e *edge.Edge, backends []*backend.Backend) {
	fmt.Fprintf(out, `
Selvedge is up: an edge and %s in this process.

  Chat     http://%s/            open it in two tabs
  Operator http://%s/            metrics at /metrics

Try, in another shell:

  bin/selvedge push --to alice --text hi --via http://%[3]s
  bin/selvedge presence alice --via http://%[3]s
  bin/selvedge ring show --via http://%[3]s

`, count(len(backends), "backend"), e.Addr(), e.AdminAddr())
	for _, b := range backends {
		fmt.Fprintf(out, "  %-4s %s, RPC %s\n", b.ID(), b.Addr(), b.RPCAddr())
	}
	fmt.Fprintf(out, "\nCtrl-C stops it.\n")
}
