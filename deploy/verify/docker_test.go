package verify

import (
	"debug/elf"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// The image is one static file that runs as nobody, and its health check is a command that is in it.
func TestDockerfile(t *testing.T) {
	parsed, err := parser.Parse(strings.NewReader(file(t, "docker/Dockerfile")))
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	stages, _, err := instructions.Parse(parsed.AST, linter.New(&linter.Config{
		Warn: func(rule, _, _, msg string, _ []parser.Range) { warnings = append(warnings, rule+": "+msg) },
	}))
	if err != nil || len(warnings)+len(parsed.Warnings) > 0 {
		t.Fatalf("%v, %v, %v", err, warnings, parsed.Warnings)
	}
	if len(stages) != 2 || !strings.HasPrefix(stages[0].BaseName, "golang:") || stages[1].BaseName != "scratch" {
		t.Fatalf("%d stages, the last from %s", len(stages), stages[len(stages)-1].BaseName)
	}
	var user string
	var entry, health, cmd []string
	there := make(map[string]bool)
	for _, c := range stages[1].Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.EntrypointCommand:
			entry = c.CmdLine
		case *instructions.CmdCommand:
			cmd = c.CmdLine
		case *instructions.HealthCheckCommand:
			health = c.Health.Test
		case *instructions.CopyCommand:
			there[c.DestPath] = true
		case *instructions.RunCommand:
			t.Errorf("the image from scratch has no shell for %s", c)
		}
	}
	if uid, _, _ := strings.Cut(user, ":"); uid == "" || uid == "0" || strings.Trim(user, "0123456789:") != "" {
		t.Errorf("user %q; want a number above 0", user)
	}
	if len(entry) != 1 || !there[entry[0]] || len(health) < 3 || health[0] != "CMD" || health[1] != entry[0] || !slices.Equal(cmd, []string{"--help"}) {
		t.Errorf("entry point %v, health check %v, command %v; copied are %v", entry, health, cmd, there)
	}
	wantCommand(t, health[2:]...)

	program, err := elf.Open(binary(t)) // built as the Dockerfile builds it
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if libraries, err := program.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("not static: %v, %v", libraries, err)
	}
	for _, segment := range program.Progs {
		if segment.Type == elf.PT_INTERP {
			t.Error("not static: it has an interpreter")
		}
	}
	modules, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(file(t, "docker/Dockerfile"), "ARG GO_VERSION=1.26") || !strings.Contains(string(modules), "\ngo 1.26") {
		t.Error("the Dockerfile builds with another Go than go.mod asks for")
	}
}

// The project is what Compose takes, and each service what selvedge takes.
func TestCompose(t *testing.T) {
	dir := secrets(t)
	name, err := filepath.Abs("../docker/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// Secrets are made where the file says how to make them; nobody leaves them in a checkout.
	text := strings.ReplaceAll(file(t, "docker/compose.yaml"), "./secrets", dir)
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  filepath.Dir(name),
		ConfigFiles: []types.ConfigFile{{Filename: name, Content: []byte(text)}},
	}, func(o *loader.Options) { o.SetProjectName("selvedge", true) })
	if err != nil {
		t.Fatal(err)
	}
	edges, backends := 0, make(map[string]bool)
	for _, s := range project.Services {
		if s.Name == "consul" {
			continue
		}
		wantCommand(t, s.Command...)
		role := s.Command[0]
		if at := s.Configs[0]; at.Target != s.Command[2] || len(s.Configs) != 1 {
			t.Errorf("%s: the configuration is at %s, and is looked for at %s", s.Name, at.Target, s.Command[2])
		}
		environ := []string{}
		for key, value := range s.Environment {
			environ = append(environ, key+"="+*value)
		}
		wantConfig(t, file(t, "docker/"+role+".yaml"), environ...)
		for _, secret := range s.Secrets {
			if _, there := project.Secrets[secret.Source]; !there {
				t.Errorf("%s: no secret %s", s.Name, secret.Source)
			}
		}
		for _, used := range secretsBelow(file(t, "docker/"+role+".yaml"), "/run/secrets/") {
			if !slices.ContainsFunc(s.Secrets, func(c types.ServiceSecretConfig) bool { return c.Source == used }) {
				t.Errorf("%s: is not given the secret %s", s.Name, used)
			}
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || s.StopGracePeriod == nil {
			t.Errorf("%s may write, has capabilities, or has no time to drain", s.Name)
		}
		switch role {
		case "edge":
			edges++
			if s.Environment["SELVEDGE_TOKEN"] == nil {
				t.Errorf("%s: has no SELVEDGE_TOKEN for the pushes that it passes on", s.Name)
			}
		case "backend":
			if s.Hostname != s.Name || *s.Environment["SELVEDGE_BACKEND__ADVERTISE"] != s.Name {
				t.Errorf("%s is %s, and is looked for as %s", s.Name, s.Hostname, *s.Environment["SELVEDGE_BACKEND__ADVERTISE"])
			}
			wantCommand(t, s.HealthCheck.Test[2:]...)
			backends[s.Hostname] = true
		}
	}
	if edges != 2 || len(backends) != 3 {
		t.Errorf("%d edges, backends %v", edges, backends)
	}
}

// secretsBelow lists the files below a folder that a configuration names.
func secretsBelow(config, folder string) (names []string) {
	for _, part := range strings.Split(config, folder)[1:] {
		names = append(names, part[:strings.IndexAny(part, ",} \n")])
	}
	return names
}
