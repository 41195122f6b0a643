package main

import (
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// choices are the flags that take one word of a few.
var choices = map[string][]string{
	"output":     {"text", "json"},
	"log-level":  {"debug", "info", "warn", "error"},
	"log-format": {"console", "json"},
	"engine":     {"auto", "splice", "copy"},
	"offline":    {"ack", "dead-letter"},
}

// complete has shells propose words where there are some, and files only where files are wanted: by the name that a flag's help gives its value.
func complete(cmd *cobra.Command) {
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	each := func(flag *pflag.Flag) {
		if _, done := cmd.GetFlagCompletionFunc(flag.Name); done {
			return
		}
		propose := cobra.FixedCompletions(choices[flag.Name], cobra.ShellCompDirectiveNoFileComp)
		switch value, _ := pflag.UnquoteUsage(flag); value {
		case "FILE":
			return
		case "DIRECTORY":
			propose = cobra.FixedCompletions(nil, cobra.ShellCompDirectiveFilterDirs)
		}
		_ = cmd.RegisterFlagCompletionFunc(flag.Name, propose) // fails only for a flag that is not there
	}
	cmd.LocalFlags().VisitAll(each)
	for _, sub := range cmd.Commands() {
		complete(sub)
	}
}
