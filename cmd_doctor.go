package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/internal/admin"
	"github.com/selvedge/selvedge/internal/doctor"
)

func newDoctor(g *global) *cobra.Command {
	var f settingFlags
	var service, tokenFile string
	var edges []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this host, Consul, and whether all members and edges agree, and say what to mend",
		Long: "Examine descriptors, ports and kernel limits of this host, Consul and what its token may do, whether all members and edges decide by the same\n" +
			"ring, their clocks, and certificates. Nothing is changed. Run it on the host, and as the user, of an edge or a backend.\n\n" +
			"Members are those of the registry. Edges stand in none: the one that the configuration is for is asked at its admin.addr, and --edge names others.\n" +
			"Exits with 1 where something is bad.",
		Example: `  selvedge doctor --config /etc/selvedge/edge.yaml
  selvedge doctor --consul 127.0.0.1:8500 --service chat --edge http://10.0.0.1:8081,http://10.0.0.2:8081 --token-file /etc/selvedge/token`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			asJSON, err := g.json()
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("log-level") {
				g.logLevel = "error" // findings say it
			}
			log, err := g.logger()
			if err != nil {
				return err
			}
			settings, err := f.load(cmd)
			if err != nil {
				return err
			}
			if f.file != "" {
				if _, err := check(settings); err != nil {
					return usage(settings.Locate(err))
				}
			}
			token, err := admin.ReadToken(tokenFile)
			if err != nil {
				return usage(fmt.Errorf("--token-file: %w", err))
			}
			for i, edge := range edges {
				edges[i] = asURL("http", edge)
			}
			findings, err := doctor.Examine(cmd.Context(), doctor.Config{
				Settings: settings, Service: service, Edges: edges, Token: cmp.Or(token, os.Getenv("SELVEDGE_TOKEN")), Logger: log,
			})
			if err != nil {
				return usage(settings.Locate(err))
			}
			return printFindings(newPrinter(cmd.OutOrStdout(), asJSON), findings)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.bind(flags)
	flags.StringVar(&service, "service", "", "`NAME` of the service (default: those of the configuration, else default)")
	f.addMembership(flags)
	flags.StringSliceVar(&edges, "edge", nil, "`URLS` of edges' admin listeners, separated by commas")
	flags.StringVar(&tokenFile, "token-file", "", "`FILE` with the token of members and edges (default: that of the configuration, or SELVEDGE_TOKEN)")
	return cmd
}

// printFindings prints a line for each, and what would mend it below. Something bad is an error.
func printFindings(out *printer, findings []doctor.Finding) error {
	counts := make(map[doctor.Level]int)
	for _, f := range findings {
		counts[f.Level]++
		text := fmt.Sprintf("%-8s %-13s %s", f.Level, f.Check, f.Text)
		if f.Mend != "" {
			text += "\n" + strings.Repeat(" ", 23) + "-> " + f.Mend
		}
		if err := out.line(text, f); err != nil {
			return err
		}
	}
	if n := counts[doctor.Bad]; n > 0 {
		return errors.New(count(n, "finding") + " to mend")
	}
	return nil
}
