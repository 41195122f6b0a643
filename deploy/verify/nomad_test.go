package verify

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/api"
	"github.com/hashicorp/nomad/jobspec2"
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
	roles := []string{"edge", "backend", "bridge"}
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
		// Edges and backends read again what has changed. A bridge is started again, and not all of them at once.
		config, known := templates[args[2]]
		if !known || role != "bridge" && (*config.ChangeMode != "signal" || *config.ChangeSignal != "SIGHUP") {
			t.Fatalf("%s: no template writes %s, or a change of it is no reload", role, args[2])
		}
		changeMode := "noop"
		if role == "bridge" {
			changeMode = "restart"
			for name, one := range templates {
				if *one.ChangeMode != changeMode || *one.Splay < time.Minute {
					t.Errorf("%s: %s changes by %s within %v", role, name, *one.ChangeMode, *one.Splay)
				}
			}
		}
		text := nomadValues.Replace(*config.EmbeddedTmpl)
		if strings.Contains(text, "{{") {
			t.Errorf("%s: this test does not know what Nomad makes of\n%s", role, text)
		}
		for _, secret := range secretsBelow(text, "/secrets/") {
			if one := templates["${NOMAD_SECRETS_DIR}/"+secret]; one == nil || *one.ChangeMode != changeMode ||
				!strings.Contains(*one.EmbeddedTmpl, "."+strings.ReplaceAll(secret, "-", "_")+" ") {
				t.Errorf("%s: no template writes the secret %s, or its change is not %s", role, secret, changeMode)
			}
		}
		if role == "bridge" {
			wantConfig(t, text, brokerURL)
		} else {
			wantConfig(t, text)
		}
		if drain := stopTime(t, role, text); *task.KillTimeout < drain+5*time.Second || task.KillSignal != "SIGTERM" {
			t.Errorf("%s: %s, and after %v SIGKILL; it drains for %v", role, task.KillSignal, *task.KillTimeout, drain)
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
	for i, want := range map[int]string{0: "SELVEDGE_TOKEN=", 2: "SELVEDGE_BRIDGE__AMQP="} {
		if !slices.ContainsFunc(job.TaskGroups[i].Tasks[0].Templates, func(one *api.Template) bool {
			return one.Envvars != nil && *one.Envvars && strings.HasPrefix(*one.EmbeddedTmpl, want)
		}) {
			t.Errorf("the %s has no %s in its environment: an edge's is for the pushes that it passes on, a bridge's is its broker", roles[i], want)
		}
	}
	if bridges := job.TaskGroups[2]; *bridges.Count < 2 {
		t.Errorf("%d bridge leaves its messages to nobody when it goes", *bridges.Count)
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
