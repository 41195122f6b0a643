package systemtest

import (
	"maps"
	"strings"
	"testing"
)

// Edges agree on every user, whatever the order in which they were told the members.
func TestEdgesAgree(t *testing.T) {
	users := userNames(1000)
	t.Run("lists in different order", func(t *testing.T) {
		list := []string{"b1=127.0.0.1:9001/9101", "b2=127.0.0.1:9002/9102*3", "b3=127.0.0.1:9003", "b4=127.0.0.1:9004/9104"}
		turned := []string{list[2], list[0], list[3], list[1]}
		one := startEdge(t, "one", "--backends", strings.Join(list, ","))
		other := startEdge(t, "other", "--backends", strings.Join(turned, ","))
		a, b := owners(t, users, "--via", one.admin), owners(t, users, "--via", other.admin)
		if !maps.Equal(a, b) {
			t.Error("the edges disagree")
		}
		if spread := distinct(a); len(spread) != 4 {
			t.Errorf("only %v own users", spread)
		}
	})
	t.Run("fed by Consul, before and after a change", func(t *testing.T) {
		c := newCluster(t, 2, 2)
		before := owners(t, users, "--via", c.edges[0].admin)
		if !maps.Equal(before, owners(t, users, "--via", c.edges[1].admin)) {
			t.Error("the edges disagree before the change")
		}
		c.addBackend("b3", "--weight", "2")
		c.awaitRing(3)
		after := owners(t, users, "--via", c.edges[0].admin)
		if !maps.Equal(after, owners(t, users, "--via", c.edges[1].admin)) || !maps.Equal(after, owners(t, users, "--via", c.backends["b1"].rpc)) {
			t.Error("the edges and a backend disagree after the change")
		}
		for user, owner := range after {
			if owner != before[user] && owner != "b3" {
				t.Errorf("%s moved from %s to %s, which was there before", user, before[user], owner)
			}
		}
	})
}

func distinct(owner map[string]string) map[string]int {
	counts := make(map[string]int)
	for _, o := range owner {
		counts[o]++
	}
	return counts
}
