package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/hashicorp/consul/api"
)

// Leader returns the address of the server that leads, as the agent knows it: without one nothing can be written, and the catalogue is as old
// as the last leader.
func (c *Consul) Leader(ctx context.Context) (string, error) {
	leader, err := c.client.Status().LeaderWithQueryOptions((&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return "", fmt.Errorf("consul: %w", err)
	}
	return leader, nil
}

// right is one that a token may have, as Consul's /v1/internal/acl/authorize takes it: what Consul's own page asks for itself.
type right struct {
	Resource, Access, Segment string
	Allow                     bool `json:",omitempty"` // in answers
}

func (r right) String() string {
	if r.Segment == "" {
		return r.Resource + ":" + r.Access
	}
	return fmt.Sprintf("%s:%s of %q", r.Resource, r.Access, r.Segment)
}

// Lacks lists the rights that the token does not have, of those that watching service takes, and where announce is set those that announcing
// a member takes. Consul itself just shows less to who may not see. A Consul without ACLs lets everybody do everything.
func (c *Consul) Lacks(ctx context.Context, service string, announce bool) ([]string, error) {
	asked := []right{{Resource: "service", Access: "read", Segment: service}, {Resource: "node", Access: "read"}}
	if announce {
		asked = append(asked, right{Resource: "service", Access: "write", Segment: service})
	}
	answered, err := c.authorize(ctx, asked)
	if err != nil {
		return nil, fmt.Errorf("consul: which rights the token has: %w", err)
	}
	var missing []string
	for _, r := range answered {
		if !r.Allow {
			missing = append(missing, r.String())
		}
	}
	return missing, nil
}

// errUnseen says that Consul leaves instances out of its answers.
var errUnseen = errors.New("the token does not see all instances of the service")

// unseen is errUnseen, with the rights that would mend it.
func (c *Consul) unseen(ctx context.Context, service string) error {
	lacks, err := c.Lacks(ctx, service, false)
	if err != nil || len(lacks) == 0 { // Consul does not say, or the right has come meanwhile
		lacks = []string{"service:read or node:read"}
	}
	return fmt.Errorf("%w: it lacks %s", errUnseen, strings.Join(lacks, " and "))
}

// authorize asks which of the rights the token has; none is told where Consul has no ACLs. Package api has no call for it.
func (c *Consul) authorize(ctx context.Context, asked []right) ([]right, error) {
	body, err := json.Marshal(asked)
	if err != nil {
		return nil, err
	}
	target := url.URL{Scheme: c.as.Scheme, Host: c.as.Address, Path: c.as.PathPrefix + "/v1/internal/acl/authorize"}
	if strings.HasPrefix(target.Host, "/") { // a socket's path
		target.Host = "localhost"
	}
	if c.conf.Datacenter != "" {
		target.RawQuery = url.Values{"dc": {c.conf.Datacenter}}.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("X-Consul-Token", c.as.Token)
	if auth := c.as.HttpAuth; auth != nil {
		r.SetBasicAuth(auth.Username, auth.Password)
	}
	answer, err := c.as.HttpClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	switch {
	case err != nil:
		return nil, err
	case answer.StatusCode == http.StatusUnauthorized && bytes.Contains(text, []byte("ACL support disabled")):
		return nil, nil
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", answer.Status, bytes.TrimSpace(text))
	}
	var answered []right
	return answered, json.Unmarshal(text, &answered)
}
