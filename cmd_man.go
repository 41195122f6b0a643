package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan is for those who build packages: make build runs it.
func newMan(*global) *cobra.Command {
	return &cobra.Command{
		Use:     "man DIRECTORY",
		Short:   "Write a manual page for each command",
		Long:    "Write a manual page for each command. SOURCE_DATE_EPOCH, where it is set, is their date.",
		Example: `  selvedge man bin/man && man -l bin/man/selvedge-push.1`,
		Hidden:  true,
		Args:    func(cmd *cobra.Command, args []string) error { return usage(cobra.ExactArgs(1)(cmd, args)) },
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // a day's date in each page would make each build another
			if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Selvedge " + version, Manual: "Selvedge"}, args[0]); err != nil {
				return fmt.Errorf("man: %w", err)
			}
			return nil
		},
	}
}
