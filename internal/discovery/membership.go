package discovery

import (
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/hashring"
)

// Membership names where members come from: exactly one of the first four fields is set. It is what --consul, --backends and --registry say.
type Membership struct {
	Consul   *ConsulConfig // the zero ConsulConfig is the local agent, or the one that Consul's environment variables name
	Backends string        // ID=HOST:PORT[/RPCPORT][*WEIGHT],...
	Registry string        // path of a registry file
	Memory   *Memory       // members of this process, for `selvedge dev` and tests

	// RingSecrets are the secrets of services' rings, by name: who does not know one cannot choose ids that one member owns. All who make the
	// ring of a service must have the same. They go with any of the fields above.
	RingSecrets *RingSecrets
}

// RingSecrets are secrets by the service's name. It is not changed once it is in a Membership.
type RingSecrets map[string][]byte

// RingOptions are how the ring of a service is made.
func (m Membership) RingOptions(service string) []hashring.Option {
	if m.RingSecrets == nil {
		return nil
	}
	if secret, keyed := (*m.RingSecrets)[service]; keyed {
		return []hashring.Option{hashring.WithSecret(secret)}
	}
	return nil
}

// Open returns the source of service's members. Those of Consul and Memory are an [Announcer] too. A list of Backends knows no
// service names: its members are those of whichever service is asked for. The error of a list or a file says which entry
// or line is wrong; whether Consul can be reached shows only while watching.
func (m Membership) Open(service string, log *zap.Logger) (Source, error) {
	if log == nil {
		log = zap.NewNop()
	}
	if service == "" {
		return nil, errors.New("discovery: the service has no name")
	}
	var named int
	for _, set := range []bool{m.Consul != nil, m.Backends != "", m.Registry != "", m.Memory != nil} {
		if set {
			named++
		}
	}
	if named != 1 {
		return nil, fmt.Errorf("discovery: %d sources of members are given; name exactly one: "+
			"--consul ADDR, --backends LIST or --registry FILE", named)
	}
	switch {
	case m.Consul != nil:
		return opened(NewConsul(*m.Consul, log))
	case m.Backends != "":
		return opened(NewStatic(m.Backends))
	case m.Registry != "":
		return opened(NewFile(m.Registry, log))
	default:
		return m.Memory, nil
	}
}

// opened keeps a nil pointer from becoming a Source that is not nil.
func opened[S Source](src S, err error) (Source, error) {
	if err != nil {
		return nil, err
	}
	return src, nil
}
