package main

import (
	"errors"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/edge"
)

func newEdge(g *global) *cobra.Command {
	var f settingFlags
	var service, key string
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "Run the front door: bring each user to the backend that owns the user",
		Example: `  selvedge edge --consul 127.0.0.1:8500 --service chat --key query:user
  selvedge edge --backends b1=10.0.0.1:9000/9100,b2=10.0.0.2:9000/9100`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, err := g.logger()
			if err != nil {
				return err
			}
			settings, err := f.load(cmd)
			if err != nil {
				return err
			}
			cfg, err := edge.FromSettings(settings, log)
			if err != nil {
				return usage(err)
			}
			if service != "" || key != "" {
				if len(cfg.Routes) > 0 {
					return usage(errors.New("--service and --key are for an edge without routes in its configuration: change the routes there"))
				}
				cfg.Routes = []edge.Route{{Service: service, Key: key}}
			}
			return runEdge(cmd, cfg)
		},
	}
	flags := cmd.Flags()
	flags.SortFlags = false
	f.bind(flags)
	flags.String("listen", "", "`ADDRESS` that clients connect to (default :8080)")
	f.keys["listen"] = func(addr string) map[string]any { return map[string]any{"listen": []any{map[string]any{"addr": addr}}} }
	f.add(flags, "admin", "admin.addr", "`ADDRESS` of the operator's listener (default 127.0.0.1:8081; off: none)")
	flags.StringVar(&service, "service", "", "`NAME` of the service behind this edge (default default)")
	flags.StringVar(&key, "key", "", "`EXPRESSION` that finds the user's id in a request (default query:user)")
	f.addMembership(flags)
	f.add(flags, "engine", "engine", "`ENGINE` that moves bytes: auto, splice or copy (default auto)")
	f.add(flags, "state-dir", "state_dir", "`DIRECTORY` for what must be known after a restart")
	f.add(flags, "drain-timeout", "drain_timeout", "how long sessions may go on after SIGTERM, a `DURATION` (default 60s)")
	return cmd
}

// runEdge runs an edge whose admin port passes pushes on to its services.
func runEdge(cmd *cobra.Command, cfg edge.Config) error {
	pushes := new(pushPorts)
	cfg.AdminHandler = pushes
	e, err := edge.New(cfg)
	if err != nil {
		return usage(err)
	}
	defer pushes.close()
	if err := pushes.open(e, cfg.ServiceNames()); err != nil {
		return usage(err)
	}
	return e.Run(cmd.Context())
}

// pushPorts is the push service of an edge's admin port: a sender for each service that its routes name. A caller chooses with the
// header Selvedge-Service; an edge with one service needs none.
type pushPorts struct {
	senders  []*sender.Sender
	names    []string
	handlers map[string]http.Handler
}

const serviceHeader = "Selvedge-Service"

// open makes the senders, before the first request comes. They see the members that the edge routes by.
func (p *pushPorts) open(e *edge.Edge, services []string) error {
	p.names = services
	p.handlers = make(map[string]http.Handler)
	for _, service := range services {
		s, err := sender.New(sender.Config{Service: service, View: e.View(service), Token: os.Getenv("SELVEDGE_TOKEN")})
		if err != nil {
			return err
		}
		p.senders = append(p.senders, s)
		p.handlers[service] = s.Handler()
	}
	return nil
}

func (p *pushPorts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	service := r.Header.Get(serviceHeader)
	if service == "" && len(p.names) == 1 {
		service = p.names[0]
	}
	handler := p.handlers[service]
	if handler == nil {
		http.Error(w, "name one of this edge's services in the header "+serviceHeader+": "+strings.Join(p.names, ", "), http.StatusNotFound)
		return
	}
	handler.ServeHTTP(w, r)
}

func (p *pushPorts) close() {
	for _, s := range p.senders {
		s.Close()
	}
}
