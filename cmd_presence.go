package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend/pushv1"
	"github.com/selvedge/selvedge/backend/sender"
)

// presenceLine is one session as it is printed.
type presenceLine struct {
	User     string            `json:"user"`
	Sessions []presenceSession `json:"sessions"`
	Error    string            `json:"error,omitempty"`
}

type presenceSession struct {
	ID      string `json:"id"`
	Device  string `json:"device,omitempty"`
	Backend string `json:"backend"`
	Since   string `json:"since"`
	Address string `json:"address"`
}

func newPresence(g *global) *cobra.Command {
	var r reach
	cmd := &cobra.Command{
		Use:     "presence USER...",
		Short:   "List the open sessions of users",
		Long:    "List the open sessions of users. Exits with 3 when none of them has any, 1 when the list may be incomplete.",
		Example: `  selvedge presence alice bob --via http://127.0.0.1:8081`,
		Args:    someArgs,
		RunE: func(cmd *cobra.Command, users []string) error {
			return r.call(cmd, g, func(s *sender.Sender, out *printer) error {
				list, err := s.Presence(cmd.Context(), users...)
				if err != nil {
					return err
				}
				return printPresence(out, list)
			})
		},
	}
	r.bind(cmd.Flags())
	return cmd
}

func printPresence(out *printer, list []*pushv1.UserPresence) error {
	sessions := 0
	var incomplete error
	for _, user := range list {
		line := presenceLine{User: user.User, Sessions: []presenceSession{}, Error: user.Error.GetMessage()}
		text := user.User + ": " + count(len(user.Sessions), "session")
		if user.Error != nil {
			incomplete = fmt.Errorf("the list of %s may be incomplete: %s", user.User, user.Error.Message)
			text += " known of"
		}
		for _, s := range user.Sessions {
			line.Sessions = append(line.Sessions, presenceSession{s.Id, s.Device, s.Backend, s.Since, s.Address})
			text += fmt.Sprintf("\n  %s on %s since %s from %s", s.Id, s.Backend, s.Since, s.Address)
			if s.Device != "" {
				text += ", device " + s.Device
			}
		}
		sessions += len(user.Sessions)
		if err := out.line(text, line); err != nil {
			return err
		}
	}
	switch {
	case incomplete != nil:
		return incomplete
	case sessions == 0:
		return &exitError{exitNobody, errors.New("nobody is online")}
	}
	return nil
}
