package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/internal/admin"
)

func newHealth(g *global) *cobra.Command {
	var addr string
	var alive bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a process whether it is ready: the health check of an image without curl",
		Long: "Ask the admin listener of an edge, a backend or a bridge whether the process should get work (/readyz), or only whether it runs (/healthz).\n" +
			"Neither needs a token. Exit code 1: it should not, or does not answer.",
		Example: `  selvedge health
  selvedge health --admin 127.0.0.1:9101 --alive`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := g.json()
			if err != nil {
				return err
			}
			path := "/readyz"
			if alive {
				path = "/healthz"
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			said, err := admin.Ask(ctx, addr, path)
			if err != nil {
				return err
			}
			return newPrinter(cmd.OutOrStdout(), asJSON).line(said, map[string]string{"health": said})
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&addr, "admin", "127.0.0.1:8081", "`ADDRESS` or URL of the admin listener")
	flags.BoolVar(&alive, "alive", false, "ask only whether the process runs")
	flags.DurationVar(&timeout, "timeout", 2*time.Second, "how long to wait for the answer, a `DURATION`")
	flags.SortFlags = false
	return cmd
}
