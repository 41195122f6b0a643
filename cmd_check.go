package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend"
	"github.com/selvedge/selvedge/backend/chat"
	"github.com/selvedge/selvedge/edge"
	"github.com/selvedge/selvedge/internal/bridge"
	"github.com/selvedge/selvedge/internal/config"
)

func newCheck(g *global) *cobra.Command {
	var f settingFlags
	var schema bool
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what is wrong with a configuration, before a process does",
		Long: "Read a configuration as `selvedge edge`, `backend` and `bridge` would, with the files that it names and the environment over it, and name file, line\n" +
			"and key of what is wrong. Nothing is listened on or connected to. Exit code 2: something is wrong.",
		Example: `  selvedge check --config /etc/selvedge/edge.yaml
  selvedge check --schema > edge.schema.json   # for editors`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if schema {
				_, err := cmd.OutOrStdout().Write(config.Schema())
				return err
			}
			asJSON, err := g.json()
			if err != nil {
				return err
			}
			if f.file == "" {
				return usage(errors.New("name the file to check: --config FILE"))
			}
			settings, err := f.load(cmd)
			if err != nil {
				return err
			}
			result, err := check(settings)
			if err != nil {
				return usage(settings.Locate(err))
			}
			result.File = f.file
			return newPrinter(cmd.OutOrStdout(), asJSON).line(result.String(), result)
		},
	}
	f.bind(cmd.Flags())
	cmd.Flags().BoolVar(&schema, "schema", false, "print the JSON schema of the file instead")
	return cmd
}

// checked is what a configuration was found to say.
type checked struct {
	File      string   `json:"file"`
	Listeners int      `json:"listeners,omitempty"` // of the edge
	Routes    int      `json:"routes,omitempty"`
	Services  []string `json:"services,omitempty"` // that routes name
	Backend   string   `json:"backend,omitempty"`  // id
	Bridge    string   `json:"bridge,omitempty"`   // what it reads
}

func (c checked) String() string {
	var parts []string
	if c.Listeners > 0 {
		parts = append(parts, fmt.Sprintf("an edge with %s and %s to %s (%s)", count(c.Listeners, "listener"), count(c.Routes, "route"),
			count(len(c.Services), "service"), strings.Join(c.Services, ", ")))
	}
	if c.Backend != "" {
		parts = append(parts, "backend "+c.Backend)
	}
	if c.Bridge != "" {
		parts = append(parts, "a bridge from "+c.Bridge)
	}
	return c.File + ": good: " + strings.Join(parts, "; ")
}

// check makes, and does not run, what the settings are for: an edge, a backend, a bridge, or several. Errors of all come together.
func check(settings *config.Settings) (result checked, err error) {
	forBackend := settings.Has("backend")
	forBridge := settings.Has("bridge")
	forEdge := !forBackend && !forBridge || settings.Has("listen") || settings.Has("routes") || settings.Has("services")
	if forEdge {
		cfg, edgeErr := edge.FromSettings(settings, zap.NewNop())
		if edgeErr == nil {
			cfg.StateDir = "" // would be made
			_, edgeErr = edge.New(cfg)
		}
		err = errors.Join(err, edgeErr)
		result.Listeners, result.Routes = max(1, len(cfg.Listen)), max(1, len(cfg.Routes))
		result.Services = cfg.ServiceNames()
	}
	if forBackend {
		cfg, backendErr := backend.FromSettings(settings, zap.NewNop())
		if backendErr == nil {
			cfg.StateDir = ""
			var b *backend.Backend
			if b, backendErr = chat.New(cfg); backendErr == nil {
				result.Backend = b.ID()
			}
		}
		err = errors.Join(err, backendErr)
	}
	if forBridge {
		cfg, bridgeErr := bridge.FromSettings(settings, zap.NewNop())
		if bridgeErr == nil {
			bridgeErr = cfg.Check()
		}
		err = errors.Join(err, bridgeErr)
		result.Bridge = cfg.Source()
	}
	return result, err
}
