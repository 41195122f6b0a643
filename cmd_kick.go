package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend/sender"
)

func newKick(g *global) *cobra.Command {
	var r reach
	var code int
	var reason, device string
	cmd := &cobra.Command{
		Use:     "kick USER",
		Short:   "Close the sessions that a user has now",
		Long:    "Close the sessions that a user has now. Exits with 3 when there was none.",
		Example: `  selvedge kick alice --reason "signed out" --via http://127.0.0.1:8081`,
		Args:    func(cmd *cobra.Command, args []string) error { return usage(cobra.ExactArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.call(cmd, g, func(s *sender.Sender, out *printer) error {
				sessions, err := s.Disconnect(cmd.Context(), args[0], device, code, reason)
				if err != nil {
					return err
				}
				if err := out.line("closed "+count(sessions, "session"), map[string]any{"user": args[0], "sessions": sessions}); err != nil {
					return err
				}
				if sessions == 0 {
					return &exitError{exitNobody, errors.New("nobody is online")}
				}
				return nil
			})
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&code, "code", 0, "close `CODE` (default 1008; 3000 to 4999 are yours)")
	flags.StringVar(&reason, "reason", "", "what the client is told, at most 123 bytes (default kick)")
	flags.StringVar(&device, "device", "", "only the sessions of this `DEVICE`")
	r.bind(flags)
	return cmd
}
