package doctor

import (
	"context"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
)

// Level is how bad a finding is.
type Level string

const (
	Good    Level = "good"
	Skipped Level = "skipped" // could not be looked at here, and the finding says why
	Warning Level = "warning" // works, and will not for ever or under load
	Bad     Level = "bad"     // does not work, or not as the configuration says
)

// Finding is what one check found.
type Finding struct {
	Check string `json:"check"` // descriptors, ports, somaxconn, pipes, consul, rights, members, ring, clock or certificates
	Level Level  `json:"level"`
	Text  string `json:"finding"`
	Mend  string `json:"mend,omitempty"` // what to do, where there is something to do
}

// Config says what is examined, and how it is reached.
type Config struct {
	Settings *config.Settings
	Service  string   // examined in place of those that Settings names; "": those, or "default"
	Edges    []string // URLs of edges' admin listeners
	Token    string   // for members and edges; "": what Settings names, or none
	Logger   *zap.Logger
}

// env is what the checks see of this host.
type env struct {
	sysctl      func(name string) ([]int, error) // such as net.core.somaxconn
	descriptors func() (int, error)              // the limit of open files; 0: none
	root        bool
	now         func() time.Time
}

// Examine makes all checks, which takes some seconds where something does not answer. The error is that of settings that cannot be used at all.
func Examine(ctx context.Context, cfg Config) ([]Finding, error) { return examine(ctx, host(), cfg) }

func examine(ctx context.Context, on env, cfg Config) ([]Finding, error) {
	if cfg.Logger == nil {
		cfg.Logger = zap.NewNop()
	}
	e := &examination{Config: cfg, env: on}
	e.descriptorLimit()
	e.portRange()
	e.acceptQueue()
	e.pipeLimit()
	e.certificates()
	if err := e.cluster(ctx); err != nil {
		return nil, err
	}
	return e.findings, nil
}

// examination collects findings, in one goroutine.
type examination struct {
	Config
	env
	findings []Finding
}

func (e *examination) found(check string, level Level, text, mend string) {
	e.findings = append(e.findings, Finding{check, level, text, mend})
}

func (e *examination) good(check, text string) { e.found(check, Good, text, "") }

// services are those that the settings speak of.
func (e *examination) services() []string {
	if e.Service != "" {
		return []string{e.Service}
	}
	var names []string
	for _, r := range e.Settings.Routes {
		names = append(names, r.Service)
	}
	if e.forBackend() {
		names = append(names, e.Settings.Backend.Service)
	}
	for i, name := range names {
		if name == "" {
			names[i] = defaultService
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) == 0 {
		names = []string{defaultService}
	}
	return names
}

const defaultService = "default"

func (e *examination) forBackend() bool { return e.Settings.Has("backend") }

// forEdge tells whether the settings are, also or only, an edge's: what `selvedge check` goes by.
func (e *examination) forEdge() bool {
	return !e.forBackend() || e.Settings.Has("listen") || e.Settings.Has("routes") || e.Settings.Has("services")
}
