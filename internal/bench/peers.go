package bench

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/template"

	"golang.org/x/sys/unix"
)

// contender is a proxy that stands in front of a backend.
type contender struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// start brings it up in front of c's first backend and returns where it listens.
	start start
	// startTLS is the same with TLS for clients, by a certificate for P-256; nil: not measured.
	startTLS start
}

const edgeName = "selvedge edge"

type start func(ctx context.Context, c *cluster) (p *process, addr string, err error)

// contenders finds all that take part. The error says which program is missing, and how to get it.
func contenders(env Env) ([]contender, error) {
	out, err := exec.Command(env.Binary, "version").Output()
	if err != nil {
		return nil, fmt.Errorf("%s version: %w; build it with `make build`", env.Binary, err)
	}
	list := []contender{{Name: edgeName, Version: firstLine(out), start: startEdge, startTLS: startEdgeTLS}}
	for _, p := range []peer{nginx, haproxy} {
		c, err := p.contender()
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// contender finds the program.
func (p peer) contender() (contender, error) {
	path, err := p.find()
	if err != nil {
		return contender{}, err
	}
	ask := p.version
	if ask == "" {
		ask = "-v"
	}
	version, err := exec.Command(path, ask).CombinedOutput()
	if err != nil {
		return contender{}, fmt.Errorf("%s %s: %w", path, ask, err)
	}
	found := contender{Name: p.name, Version: firstLine(version),
		start: func(_ context.Context, c *cluster) (*process, string, error) { return p.start(path, c, nil) }}
	if p.tls {
		found.startTLS = func(_ context.Context, c *cluster) (*process, string, error) {
			pair, err := c.certificate()
			if err != nil {
				return nil, "", err
			}
			return p.start(path, c, pair)
		}
	}
	return found, nil
}

func firstLine(out []byte) string {
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(line)
}

func startEdge(ctx context.Context, c *cluster) (*process, string, error) {
	e, err := c.addEdge(ctx)
	if err != nil {
		return nil, "", err
	}
	return e.process, e.addr, nil
}

func startEdgeTLS(ctx context.Context, c *cluster) (*process, string, error) {
	pair, err := c.certificate()
	if err != nil {
		return nil, "", err
	}
	file := filepath.Join(c.dir, "edge.yaml")
	text := fmt.Sprintf("listen:\n  - {addr: \"127.0.0.1:0\", tls: {certs: [{cert: %q, key: %q}]}}\n", pair.Cert, pair.Key)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, "", err
	}
	e, err := c.addEdge(ctx, "--config", file)
	if err != nil {
		return nil, "", err
	}
	return e.process, e.addr, nil
}

// peer is another proxy: a Debian package, and a configuration that does what the edge does: reads the user's id from the query,
// hashes it onto a ring of (one) backends, passes it on in a header together with the client's address, keeps no log.
type peer struct {
	name, command, debian string
	config                *template.Template
	// args starts it on its configuration in dir, with the listening socket as descriptor 3.
	args    func(file, dir string) []string
	env     []string
	version string // the argument that asks for it; "": -v
	more    string // lines of the configuration
	tls     bool   // takes part with TLS too
}

// The listening socket is ours, bound to a port of the system's choice, and is handed down: a port that was free a moment
// ago may be taken, and what connects before the peer is up waits in the backlog.
var nginx = peer{
	name: "nginx", command: "nginx", debian: "nginx-light", tls: true,
	env: []string{"NGINX=3;"}, // how a new nginx gets the sockets of the old one
	args: func(file, dir string) []string {
		return []string{"-p", dir, "-c", file, "-e", "stderr", "-g", "daemon off;"}
	},
	config: template.Must(template.New("nginx").Parse(`
worker_processes {{.Processors}};
worker_rlimit_nofile {{.Descriptors}};
pid nginx.pid;
error_log stderr error;
events { worker_connections {{.Descriptors}}; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  upstream backends { hash $arg_user consistent; server {{.Backend}}; }
  server {
    listen {{.Listen}}{{if .TLS}} ssl{{end}} backlog=4096;
    {{with .TLS}}ssl_certificate {{.Cert}}; ssl_certificate_key {{.Key}};{{end}}
    location / {
      proxy_pass http://backends;
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection "upgrade";
      proxy_set_header X-Selvedge-User $arg_user;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_read_timeout 1h;
      proxy_send_timeout 1h;
    }
  }
}
`)),
}

var haproxy = peer{
	name: "HAProxy", command: "haproxy", debian: "haproxy", tls: true,
	args: func(file, _ string) []string { return []string{"-db", "-f", file} },
	config: template.Must(template.New("haproxy").Parse(`
global
  nbthread {{.Processors}}
  maxpipes 256
  maxconn {{.Sessions}}
defaults
  mode http
  option forwardfor
  timeout connect 5s
  timeout client 1h
  timeout server 1h
  timeout tunnel 1h
  {{.More}}
frontend front
  bind fd@3{{with .TLS}} ssl crt {{.Both}}{{end}}
  maxconn {{.Sessions}}
  default_backend backends
backend backends
  balance url_param user
  hash-type consistent
  http-request set-header X-Selvedge-User %[url_param(user)]
  server b1 {{.Backend}}
`)),
}

func (p peer) find() (string, error) {
	path, err := exec.LookPath(p.command)
	if err == nil {
		return path, nil
	}
	path = filepath.Join("/usr/sbin", p.command) // not in everybody's PATH
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%s is not installed; `apt-get install --no-install-recommends %s` brings it", p.name, p.debian)
	}
	return path, nil
}

func (p peer) start(path string, c *cluster, secure *keyPair) (*process, string, error) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	defer listener.Close()
	socket, err := listener.(*net.TCPListener).File()
	if err != nil {
		return nil, "", err
	}
	defer socket.Close()
	addr := listener.Addr().String()

	limit := descriptorLimit()
	var config bytes.Buffer
	err = p.config.Execute(&config, map[string]any{
		"Processors": runtime.NumCPU(), "Descriptors": limit, "Sessions": sessionsPerProxy(limit),
		"Listen": addr, "Backend": c.backends[0].addr, "TLS": secure, "More": p.more,
	})
	if err != nil {
		return nil, "", err
	}
	file := filepath.Join(c.dir, filepath.Base(path)+".conf")
	if err := os.WriteFile(file, config.Bytes(), 0o600); err != nil {
		return nil, "", err
	}
	cmd := exec.Command(path, p.args(file, c.dir)...)
	cmd.Env = append(os.Environ(), p.env...)
	cmd.Env = append(cmd.Env, "XDG_CONFIG_HOME="+c.dir, "XDG_DATA_HOME="+c.dir) // where Caddy leaves files
	cmd.ExtraFiles = []*os.File{socket}                                         // becomes descriptor 3
	started, err := startProcess(p.name, cmd, "")
	if err != nil {
		return nil, "", err
	}
	// Handing a socket down makes it a blocking one, for all who have it; two workers that accept would wait for each other.
	if err := unix.SetNonblock(int(socket.Fd()), true); err != nil {
		started.kill()
		return nil, "", err
	}
	return started, addr, nil
}
