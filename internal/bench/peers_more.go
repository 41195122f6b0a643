package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/template"
)

// haproxySplice is HAProxy with what it does best for streams.
var haproxySplice = func() peer {
	p := haproxy
	p.name, p.more, p.tls = "HAProxy splice", "option splice-auto", false
	return p
}()

// caddy is built from the module beside this package, which pins it.
func caddy(path string) peer {
	return peer{
		name: "Caddy", command: path, version: "version",
		args: func(file, _ string) []string { return []string{"run", "--config", file, "--adapter", ""} },
		config: template.Must(template.New("caddy").Parse(`{
  "admin": {"disabled": true, "config": {"persist": false}},
  "logging": {"logs": {"default": {"level": "ERROR"}}},
  "apps": {"http": {"servers": {"front": {
    "listen": ["fd/3"],
    "automatic_https": {"disable": true},
    "routes": [{"handle": [{
      "handler": "reverse_proxy",
      "upstreams": [{"dial": "{{.Backend}}"}],
      "load_balancing": {"selection_policy": {"policy": "query", "key": "user"}},
      "headers": {"request": {"set": {"X-Selvedge-User": ["{http.request.uri.query.user}"]}}}
    }]}]
  }}}}
}
`)),
	}
}

// moreContenders are those that only [Proxies] measures. skipped says who cannot take part.
func moreContenders(ctx context.Context, env Env, cfg ProxiesConfig) (list []contender, skipped string, err error) {
	c, err := haproxySplice.contender()
	if err != nil {
		return nil, "", err
	}
	list = append(list, c, contender{Name: "httputil.ReverseProxy", Version: runtime.Version(), start: startReverseProxy})
	if cfg.CaddyDir == "" || len(cfg.Beside) > 0 && !slices.Contains(cfg.Beside, "Caddy") {
		return list, "", nil
	}
	path, err := filepath.Abs(filepath.Join("bin", "bench-caddy"))
	if err != nil {
		return nil, "", err
	}
	env.Progress("building Caddy (some minutes, once)")
	build := exec.CommandContext(ctx, "go", "build", "-C", cfg.CaddyDir, "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return nil, "", ctx.Err()
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return list, fmt.Sprintf("Caddy could not be built: %v: %s", err, lines[len(lines)-1]), nil
	}
	if c, err = caddy(path).contender(); err != nil {
		return nil, "", err
	}
	return append(list, c), "", nil
}

func startReverseProxy(ctx context.Context, c *cluster) (*process, string, error) {
	p, err := startProcess("reverse proxy", exec.Command(c.env.Self, roleReverseProxy, c.backends[0].addr), reverseProxyUp)
	if err != nil {
		return nil, "", err
	}
	entry, err := p.up(ctx)
	return p, entry.text("addr"), err
}
