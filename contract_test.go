package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The documented commands and flags, with their defaults: scripts and units lean on them. What a flag leaves to the configuration has its default
// there, and says it in its help.
func TestCommandsAndFlags(t *testing.T) {
	const (
		membership = " --consul --backends --registry"
		reach      = " --via --consul --service=default --token-file"
	)
	want := map[string]string{
		"dev":           "--listen=127.0.0.1:8080 --admin=127.0.0.1:8081 --members=3",
		"edge":          "--config --listen~:8080 --admin~127.0.0.1:8081 --service~default --key~query:user --engine~auto --state-dir --drain-timeout~60s" + membership,
		"backend":       "--config --id --listen~:9000 --rpc~127.0.0.1:9100 --admin --advertise --service~default --weight~1 --state-dir --drain-timeout~60s" + membership,
		"push":          "--to --to-file --all --text --file --binary" + reach,
		"presence":      reach,
		"kick":          "--code~1008 --reason" + reach,
		"ring owner":    reach + membership,
		"ring show":     reach + membership,
		"ring diff":     reach + membership,
		"ring simulate": "",
		"ring bury":     reach + membership,
		"bridge":        "--redis --channel --stream --group --amqp --queue --exchange --nats --subject --via --consul --service~default --token-file",
		"doctor":        "--config",
		"check":         "--config",
		"version":       "",
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		cmd, _, err := newRoot().Find(strings.Fields(name))
		if err != nil || cmd.CommandPath() != "selvedge "+name || cmd.Hidden {
			t.Errorf("no command %q: %v", name, err)
			continue
		}
		for flag := range strings.FieldsSeq(want[name] + " --output=text --log-level=info --log-format=console") {
			if problem := lacks(cmd, strings.TrimPrefix(flag, "--")); problem != "" {
				t.Errorf("selvedge %s %s: %s", name, flag, problem)
			}
		}
	}
	if help, _, _ := execute(t, "edge", "--help"); !strings.Contains(help, "127.0.0.1:8500") {
		t.Error("nothing says where Consul is by default")
	}
}

// lacks says what is not as NAME, NAME=DEFAULT or NAME~DEFAULT (which the help says) wants it.
func lacks(cmd *cobra.Command, want string) string {
	name, value, isValue := strings.Cut(want, "=")
	name, said, isSaid := strings.Cut(name, "~")
	var flag *pflag.Flag
	if flag = cmd.Flags().Lookup(name); flag == nil {
		flag = cmd.InheritedFlags().Lookup(name)
	}
	switch {
	case flag == nil:
		return "there is none"
	case isValue && flag.DefValue != value:
		return fmt.Sprintf("default %q", flag.DefValue)
	case isSaid && !strings.Contains(flag.Usage, "(default "+said):
		return fmt.Sprintf("the help says %q", flag.Usage)
	}
	return ""
}
