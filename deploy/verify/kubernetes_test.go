package verify

import (
	"maps"
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
	if err != nil || len(names) != 4 {
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
	if len(deployments) != 2 || deployments[0].Name != "selvedge-bridge" || deployments[1].Name != "selvedge-edge" || len(sets) != 1 {
		t.Fatalf("%d deployments, %d stateful sets", len(deployments), len(sets))
	}
	bridge, edge, backend := deployments[0].Spec, deployments[1].Spec, sets[0].Spec
	wantPod(t, all, "edge", edge.Selector, edge.Template)
	wantPod(t, all, "backend", backend.Selector, backend.Template)
	wantPod(t, all, "bridge", bridge.Selector, bridge.Template)
	for role, d := range map[string]appsv1.DeploymentSpec{"edges": edge, "bridges": bridge} {
		if d.Strategy.RollingUpdate.MaxUnavailable.IntValue() != 0 || d.Strategy.RollingUpdate.MaxSurge.IntValue() != 1 {
			t.Errorf("%s are replaced by %v", role, d.Strategy.RollingUpdate)
		}
	}
	if *bridge.Replicas < 2 {
		t.Errorf("%d bridge leaves its messages to nobody when it goes", *bridge.Replicas)
	}
	if !slices.ContainsFunc(ofKind[*corev1.Service](all), func(s *corev1.Service) bool {
		return s.Name == backend.ServiceName && s.Spec.ClusterIP == "None"
	}) {
		t.Errorf("the stateful set's service %s is not there, or has an address", backend.ServiceName)
	}

	// Each selector finds exactly one of the three, which has the ports.
	pods := []corev1.PodTemplateSpec{edge.Template, backend.Template, bridge.Template}
	finds := func(what string, selector labels.Selector) (found corev1.PodTemplateSpec) {
		n := 0
		for _, pod := range pods {
			if selector.Matches(labels.Set(pod.Labels)) {
				found = pod
				n++
			}
		}
		if n != 1 || selector.Empty() {
			t.Fatalf("%s selects %d of the %d kinds of pods", what, n, len(pods))
		}
		return found
	}
	for _, s := range ofKind[*corev1.Service](all) {
		pod := finds("service "+s.Name, labels.SelectorFromSet(s.Spec.Selector))
		for _, port := range s.Spec.Ports {
			wantPort(t, "service "+s.Name, port.TargetPort.StrVal, pod)
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
	policies := ofKind[*networkingv1.NetworkPolicy](all)
	for _, p := range policies {
		selector, err := metav1.LabelSelectorAsSelector(&p.Spec.PodSelector)
		if err != nil {
			t.Error(err)
			continue
		}
		pod := finds("network policy "+p.Name, selector)
		for _, rule := range p.Spec.Ingress {
			for _, port := range rule.Ports {
				wantPort(t, "network policy "+p.Name, port.Port.StrVal, pod)
				if public := len(rule.From) == 0; public && port.Port.StrVal != "http" {
					t.Errorf("network policy %s lets everybody to %s", p.Name, port.Port.StrVal)
				}
			}
		}
	}
	if budgets != len(pods) || len(policies) != len(pods) {
		t.Errorf("%d budgets, %d network policies", budgets, len(policies))
	}

	// Who gets where.
	stranger, prometheus := labels.Set{"app": "another"}, labels.Set{"app": "prometheus", "selvedge-access": "true"}
	for _, test := range []struct {
		from labels.Set
		to   corev1.PodTemplateSpec
		open string
	}{
		{stranger, edge.Template, "http"}, {stranger, backend.Template, ""}, {stranger, bridge.Template, ""},
		{prometheus, edge.Template, "http admin"}, {prometheus, backend.Template, "rpc admin"}, {prometheus, bridge.Template, "admin"},
		{edge.Template.Labels, backend.Template, "edges rpc"}, {backend.Template.Labels, backend.Template, "rpc"},
		{bridge.Template.Labels, backend.Template, "rpc admin"}, // as all senders that have the label
		{edge.Template.Labels, bridge.Template, ""}, {backend.Template.Labels, bridge.Template, ""},
	} {
		var open []string
		for _, port := range test.to.Spec.Containers[0].Ports {
			if reaches(t, policies, test.from, test.to.Labels, port.Name) {
				open = append(open, port.Name)
			}
		}
		if got := strings.Join(open, " "); got != test.open {
			t.Errorf("%v reaches %q of %v, want %q", test.from, got, test.to.Labels, test.open)
		}
	}
}

// reaches tells whether network policies let a pod to another one's port.
func reaches(t *testing.T, policies []*networkingv1.NetworkPolicy, from, to labels.Set, port string) bool {
	t.Helper()
	matches := func(s *metav1.LabelSelector, pod labels.Set) bool {
		selector, err := metav1.LabelSelectorAsSelector(s)
		if err != nil {
			t.Fatal(err)
		}
		return selector.Matches(pod)
	}
	for _, p := range policies {
		if !matches(&p.Spec.PodSelector, to) {
			continue
		}
		for _, rule := range p.Spec.Ingress {
			hasPort := slices.ContainsFunc(rule.Ports, func(one networkingv1.NetworkPolicyPort) bool { return one.Port.StrVal == port })
			hasPeer := len(rule.From) == 0 || slices.ContainsFunc(rule.From, func(one networkingv1.NetworkPolicyPeer) bool { return matches(one.PodSelector, from) })
			if hasPort && hasPeer {
				return true
			}
		}
	}
	return false
}

// wantPod checks what runs: the command, its configuration, that it may do little, and that it has the time to drain.
func wantPod(t *testing.T, all []metav1.Object, role string, selector *metav1.LabelSelector, pod corev1.PodTemplateSpec) {
	t.Helper()
	is := maps.Clone(selector.MatchLabels)
	if role == "bridge" {
		is["selvedge-access"] = "true" // which its selector leaves out: it says what the pod may, and not what it is
	}
	if !reflect.DeepEqual(is, pod.Labels) {
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
		if name, _, _ := strings.Cut(brokerURL, "="); e.Name == name && e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil {
			environ = append(environ, brokerURL)
		}
	}
	wantConfig(t, config, environ...)
	wantMounted(t, role, pod.Spec, secretsBelow(config, "/etc/selvedge/secrets/"))
	if role == "edge" && !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "SELVEDGE_TOKEN" }) {
		t.Error("the edge has no SELVEDGE_TOKEN for the pushes that it passes on")
	}
	drain, before := stopTime(t, role, config), time.Duration(0)
	if role != "bridge" { // to which nobody connects
		before = time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
	}
	if grace := time.Duration(*pod.Spec.TerminationGracePeriodSeconds) * time.Second; grace < drain+before+5*time.Second {
		t.Errorf("%s: %v to drain and %v before that do not fit into %v", role, drain, before, grace)
	}
	for name, probes := range map[string][]*corev1.Probe{"/healthz": {c.StartupProbe, c.LivenessProbe}, "/readyz": {c.ReadinessProbe}} {
		for _, probe := range probes {
			if probe.HTTPGet.Path != name || probe.HTTPGet.Port.StrVal != "admin" {
				t.Errorf("%s: probe of %s asks %v", role, name, probe.HTTPGet)
			}
		}
	}
	for _, port := range c.Ports {
		if !strings.Contains(config, `":`+strconv.Itoa(int(port.ContainerPort))+`"`) {
			t.Errorf("%s: nobody listens on port %d (%s)", role, port.ContainerPort, port.Name)
		}
	}
}

// wantMounted checks that the secrets that a configuration names are below the folder in which it looks for them. Where a pod is given some of them,
// it is given no other.
func wantMounted(t *testing.T, role string, pod corev1.PodSpec, named []string) {
	t.Helper()
	for _, volume := range pod.Volumes {
		if volume.Secret == nil {
			continue
		}
		if !slices.ContainsFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.Name == volume.Name && m.MountPath == "/etc/selvedge/secrets" && m.ReadOnly
		}) {
			t.Errorf("%s: the secrets are elsewhere, or to be written", role)
		}
		var given []string
		for _, item := range volume.Secret.Items {
			if item.Key != item.Path {
				t.Errorf("%s: %s is called %s", role, item.Key, item.Path)
			}
			given = append(given, item.Path)
		}
		slices.Sort(given)
		slices.Sort(named)
		if (role == "bridge" || given != nil) && !slices.Equal(given, named) {
			t.Errorf("%s: is given %v, and its configuration names %v", role, given, named)
		}
		return
	}
	t.Errorf("%s: has no secrets", role)
}

// wantPort checks that a pod has the port of that name.
func wantPort(t *testing.T, what, name string, pod corev1.PodTemplateSpec) {
	t.Helper()
	if !slices.ContainsFunc(pod.Spec.Containers[0].Ports, func(port corev1.ContainerPort) bool { return port.Name == name }) {
		t.Errorf("%s: its pods have no port called %s", what, name)
	}
}
