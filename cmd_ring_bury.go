package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend/sender"
)

func newRingBury(g *global) *cobra.Command {
	var r reach
	cmd := &cobra.Command{
		Use:   "bury MEMBER",
		Short: "Hold a member's process dead, whose host is gone for good",
		Long: `Hold a member's process dead, whose host is gone for good.

A host that vanishes without a word leaves the others unsure whether its process still holds sessions: pushes to some users
end unsettled, and a new member waits before it joins. Once the registry has dropped it and most members have heard nothing of it
for 13 seconds they bury it by themselves. This says so by hand. A process that lives after all closes its sessions and joins anew.`,
		Example: `  selvedge ring bury b3 --consul 127.0.0.1:8500 --service chat`,
		Args:    func(cmd *cobra.Command, args []string) error { return usage(cobra.ExactArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, g, func(s *sender.Sender, out *printer) error {
				ctx, cancel := context.WithTimeout(cmd.Context(), ringTimeout)
				defer cancel()
				known, err := s.Bury(ctx, args[0])
				if err != nil {
					return err
				}
				if !known {
					return fmt.Errorf("no process of member %q is known; see: selvedge ring show", args[0])
				}
				return out.line("buried "+args[0], map[string]any{"buried": args[0]})
			})
		},
	}
	r.bind(cmd.Flags())
	return cmd
}
