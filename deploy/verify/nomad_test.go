package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
	"sigs.k8s.io/yaml"
)

// What Nomad puts in place of what the templates ask for.
var nomadValues = strings.NewReplacer(`{{ env "NOMAD_SECRETS_DIR" }}`, "/secrets", `{{ env "NOMAD_ALLOC_INDEX" }}`, "0", `{{ env "NOMAD_IP_rpc" }}`, "10.0.0.1")

// The job is what Nomad's own parser takes, and each task what selvedge takes.
func TestNomad(t *testing.T) {
	job, err := jobspec2.ParseWithConfig(&jobspec2.ParseConfig{Path: "selvedge.nomad.hcl", Body: []byte(file(t, "nomad/selvedge.nomad.hcl")), Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	job.Canonicalize()
	roles := []string{"edge", "backend"}
	if len(job.TaskGroups) != len(roles) {
		t.Fatalf("%d groups", len(job.TaskGroups))
	}
	for i, role := range roles {
		group := job.TaskGroups[i]
		task := group.Tasks[0]
		args := texts(task.Config["args"])
		if *group.Name != role || len(args) == 0 || args[0] != role {
			t.Fatalf("group %s runs %v", *group.Name, args)
		}
		wantCommand(t, args...)
		templates := make(map[string]*api.Template)
		for _, one := range task.Templates {
			templates[*one.DestPath] = one
		}
		config, known := templates[args[2]]
		if !known || *config.ChangeMode != "signal" || *config.ChangeSignal != "SIGHUP" {
			t.Fatalf("%s: no template writes %s, or a change of it is no reload", role, args[2])
		}
		text := nomadValues.Replace(*config.EmbeddedTmpl)
		if strings.Contains(text, "{{") {
			t.Errorf("%s: this test does not know what Nomad makes of\n%s", role, text)
		}
		for _, secret := range secretsBelow(text, "/secrets/") {
			if one := templates["${NOMAD_SECRETS_DIR}/"+secret]; one == nil || *one.ChangeMode != "noop" ||
				!strings.Contains(*one.EmbeddedTmpl, "."+strings.ReplaceAll(secret, "-", "_")+" ") {
				t.Errorf("%s: no template writes the secret %s, or it restarts the task", role, secret)
			}
		}
		wantConfig(t, text)
		var settings struct {
			Drain string `json:"drain_timeout"`
		}
		if err := yaml.Unmarshal([]byte(text), &settings); err != nil {
			t.Error(err)
		}
		if drain, err := time.ParseDuration(settings.Drain); err != nil || *task.KillTimeout < drain+5*time.Second || task.KillSignal != "SIGTERM" {
			t.Errorf("%s: %s, and after %v SIGKILL; it drains for %v (%v)", role, task.KillSignal, *task.KillTimeout, drain, err)
		}
		if u := group.Update; *u.MaxParallel != 1 || *u.MinHealthyTime < 20*time.Second || *u.HealthCheck != "checks" {
			t.Errorf("%s: updates by %d after %v, by %s", role, *u.MaxParallel, *u.MinHealthyTime, *u.HealthCheck)
		}
		ports := make(map[string]bool)
		for _, port := range group.Networks[0].ReservedPorts {
			ports[port.Label] = true
		}
		for _, service := range group.Services {
			for _, check := range service.Checks {
				port := check.PortLabel
				if port == "" {
					port = service.PortLabel
				}
				if check.Path != "/readyz" || port != "admin" || !ports[port] || !ports[service.PortLabel] {
					t.Errorf("%s: checks %s at port %s", role, check.Path, port)
				}
			}
		}
	}
	if env := job.TaskGroups[0].Tasks[0].Templates; !slices.ContainsFunc(env, func(one *api.Template) bool {
		return one.Envvars != nil && *one.Envvars && strings.HasPrefix(*one.EmbeddedTmpl, "SELVEDGE_TOKEN=")
	}) {
		t.Error("the edge has no SELVEDGE_TOKEN for the pushes that it passes on")
	}
	if backends := job.TaskGroups[1]; *backends.Count != 3 {
		t.Errorf("%d backends", *backends.Count)
	}
}

func texts(list any) (all []string) {
	values, _ := list.([]any)
	for _, v := range values {
		if text, is := v.(string); is {
			all = append(all, text)
		}
	}
	return all
}
