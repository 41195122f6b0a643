package verify

import (
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// kinds are the types of the API that the manifests use.
var kinds = map[string]func() metav1.Object{
	"v1 Namespace":                       func() metav1.Object { return new(corev1.Namespace) },
	"v1 ConfigMap":                       func() metav1.Object { return new(corev1.ConfigMap) },
	"v1 Service":                         func() metav1.Object { return new(corev1.Service) },
	"apps/v1 Deployment":                 func() metav1.Object { return new(appsv1.Deployment) },
	"apps/v1 StatefulSet":                func() metav1.Object { return new(appsv1.StatefulSet) },
	"policy/v1 PodDisruptionBudget":      func() metav1.Object { return new(policyv1.PodDisruptionBudget) },
	"networking.k8s.io/v1 NetworkPolicy": func() metav1.Object { return new(networkingv1.NetworkPolicy) },
}

// manifests decodes all of them: a key that the API does not have, or has elsewhere, is an error.
func manifests(t *testing.T) (all []metav1.Object) {
	t.Helper()
	names, err := filepath.Glob("../kubernetes/*.yaml")
	if err != nil || len(names) != 3 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		for _, document := range strings.Split(file(t, "kubernetes/"+filepath.Base(name)), "\n---\n") {
			var kind metav1.TypeMeta
			if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			of, known := kinds[kind.APIVersion+" "+kind.Kind]
			if !known {
				t.Fatalf("%s: %v is no kind that this test knows", name, kind)
			}
			object := of()
			if err := yaml.UnmarshalStrict([]byte(document), object); err != nil {
				t.Fatalf("%s, %s: %v", name, kind.Kind, err)
			}
			if problems := validation.IsDNS1123Label(object.GetName()); len(problems) > 0 {
				t.Errorf("%s, %s %q: %v", name, kind.Kind, object.GetName(), problems)
			}
			if object.GetNamespace() != "selvedge" && kind.Kind != "Namespace" {
				t.Errorf("%s, %s %s is in no namespace", name, kind.Kind, object.GetName())
			}
			all = append(all, object)
		}
	}
	return all
}

func ofKind[T any](all []metav1.Object) (found []T) {
	for _, object := range all {
		if one, is := object.(T); is {
			found = append(found, one)
		}
	}
	return found
}

func TestKubernetes(t *testing.T) {
	all := manifests(t)
	deployments, sets := ofKind[*appsv1.Deployment](all), ofKind[*appsv1.StatefulSet](all)
	if len(deployments) != 1 || len(sets) != 1 {
		t.Fatalf("%d deployments, %d stateful sets", len(deployments), len(sets))
	}
	edge, backend := deployments[0].Spec, sets[0].Spec
	wantPod(t, all, "edge", edge.Selector, edge.Template)
	wantPod(t, all, "backend", backend.Selector, backend.Template)
	if edge.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 || edge.Strategy.RollingUpdate.MaxSurge.IntValue() != 1 {
		t.Errorf("edges are replaced by %v", edge.Strategy.RollingUpdate)
	}
	if !slices.ContainsFunc(ofKind[*corev1.Service](all), func(s *corev1.Service) bool {
		return s.Name == backend.ServiceName && s.Spec.ClusterIP == "None"
	}) {
		t.Errorf("the stateful set's service %s is not there, or has an address", backend.ServiceName)
	}

	// Each selector finds exactly one of the two.
	pods := []labels.Set{edge.Template.Labels, backend.Template.Labels}
	finds := func(what string, selector labels.Selector) {
		n := 0
		for _, pod := range pods {
			if selector.Matches(pod) {
				n++
			}
		}
		if n != 1 || selector.Empty() {
			t.Errorf("%s selects %d of the 2 kinds of pods", what, n)
		}
	}
	for _, s := range ofKind[*corev1.Service](all) {
		finds("service "+s.Name, labels.SelectorFromSet(s.Spec.Selector))
		for _, port := range s.Spec.Ports {
			wantPort(t, "service "+s.Name, port.TargetPort.StrVal, edge.Template, backend.Template)
		}
	}
	budgets := 0
	for _, b := range ofKind[*policyv1.PodDisruptionBudget](all) {
		selector, err := metav1.LabelSelectorAsSelector(b.Spec.Selector)
		if err != nil || b.Spec.MaxUnavailable.IntValue() != 1 {
			t.Errorf("budget %s: %v, %v", b.Name, b.Spec, err)
			continue
		}
		finds("budget "+b.Name, selector)
		budgets++
	}
	policies := 0
	for _, p := range ofKind[*networkingv1.NetworkPolicy](all) {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Error(err)
			continue
		}
		finds("network policy "+p.Name, selector)
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				wantPort(t, "network policy "+p.Name, port.Port.StrVal, edge.Template, backend.Template)
				if public := len(rule.From) == 0; public && port.Port.StrVal != "http" {
					t.Errorf("network policy %s lets everybody to %s", p.Name, port.Port.StrVal)
				}
			}
		}
		policies++
	}
	if budgets != 2 || policies != 2 {
		t.Errorf("%d budgets, %d network policies", budgets, policies)
	}
}

// wantPod checks what runs: the command, its configuration, that it may do little, and that it has the time to drain.
func wantPod(t *testing.T, all []metav1.Object, role string, selector *metav1.LabelSelector, pod corev1.PodTemplateSpec) {
	t.Helper()
	if !reflect.DeepEqual(selector.MatchLabels, pod.Labels) {
		t.Errorf("%s: selects %v, is %v", role, selector.MatchLabels, pod.Labels)
	}
	c, s := pod.Spec.Containers[0], pod.Spec.SecurityContext
	if !*s.RunAsNonRoot || *s.RunAsUser == 0 || s.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault ||
		*c.SecurityContext.AllowPrivilegeEscalation || !*c.SecurityContext.ReadOnlyRootFilesystem ||
		!slices.Equal(c.SecurityContext.Capabilities.Drop, []corev1.Capability{"ALL"}) || *pod.Spec.AutomountServiceAccountToken {
		t.Errorf("%s may do more than the policy `restricted` allows", role)
	}
	wantCommand(t, c.Args...)
	if c.Args[0] != role {
		t.Errorf("%s runs %v", role, c.Args)
	}
	var config string
	for _, m := range ofKind[*corev1.ConfigMap](all) {
		if m.Name == "selvedge-"+role {
			config = m.Data[role+".yaml"]
		}
	}
	environ := []string{"CONSUL_HTTP_ADDR=10.0.0.1:8500"}
	for _, e := range c.Env {
		if strings.HasPrefix(e.Name, "SELVEDGE_BACKEND__") {
			environ = append(environ, e.Name+"=10.0.0.1") // an address of the pod
		}
	}
	wantConfig(t, config, environ...)
	if role == "edge" && !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "SELVEDGE_TOKEN" }) {
		t.Error("the edge has no SELVEDGE_TOKEN for the pushes that it passes on")
	}
	var settings struct {
		Drain string `json:"drain_timeout"`
	}
	if err := yaml.Unmarshal([]byte(config), &settings); err != nil {
		t.Error(err)
	}
	drain, err := time.ParseDuration(settings.Drain)
	before := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; err != nil || grace < drain+before+5*time.Second {
		t.Errorf("%s: %v (%v) to drain and %v before that do not fit into %v", role, drain, err, before, grace)
	}
	for name, probe := range map[string]*corev1.Probe{"/healthz": c.LivenessProbe, "/readyz": c.ReadinessProbe} {
		if probe.HTTPGet.Path != name || probe.HTTPGet.Port.StrVal != "admin" {
			t.Errorf("%s: probe of %s asks %v", role, name, probe.HTTPGet)
		}
	}
	for _, port := range c.Ports {
		if !strings.Contains(config, `":`+strconv.Itoa(int(port.ContainerPort))+`"`) {
			t.Errorf("%s: nobody listens on port %d (%s)", role, port.ContainerPort, port.Name)
		}
	}
}

// wantPort checks that one of the pods has the port of that name.
func wantPort(t *testing.T, what, name string, pods ...corev1.PodTemplateSpec) {
	t.Helper()
	for _, pod := range pods {
		for _, port := range pod.Spec.Containers[0].Ports {
			if port.Name == name {
				return
			}
		}
	}
	t.Errorf("%s: no pod has a port called %s", what, name)
}
