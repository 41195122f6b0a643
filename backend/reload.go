package backend

import (
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/selvedge/selvedge/internal/config"
)

// live is the part of the configuration that can be replaced while the member runs. It is immutable; each call reads it once.
type live struct {
	rpcToken, adminToken string
	rpcTLS               *rpcTLS // nil: without
}

func newLive(cfg Config) (*live, error) {
	secure, err := newRPCTLS(cfg.RPCTLS)
	if err != nil {
		return nil, config.Under("backend.rpc.tls", err)
	}
	return &live{cfg.RPCToken, cfg.AdminToken, secure}, nil
}

func (b *Backend) rpcToken() string   { return b.live.Load().rpcToken }
func (b *Backend) adminToken() string { return b.live.Load().adminToken }

// reloadable are the fields of Config that Reload takes, or that it does not look at.
var reloadable = map[string]bool{"RPCToken": true, "AdminToken": true, "Metrics": true, "Logger": true}

// Reload has new calls treated by cfg: RPCToken and AdminToken count at once, and the files of RPCTLS, which are read anew, for new connections. Everything else must be as it was given to New, but for handlers,
// Metrics and Logger, which are not looked at. The error names what differs, or what is wrong, and then nothing has changed.
func (b *Backend) Reload(cfg Config) error {
	cfg = cfg.withDefaults()
	if err := errors.Join(cfg.check(), b.cfg.needsRestart(cfg)); err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	next, err := newLive(cfg)
	if err != nil {
		return fmt.Errorf("backend: %w", err)
	}
	b.live.Store(next)
	return nil
}

// needsRestart says what of next differs from c that a running member cannot change.
func (c Config) needsRestart(next Config) error {
	var differ []string
	was, is := reflect.ValueOf(c), reflect.ValueOf(next)
	for i := range was.NumField() {
		field := was.Type().Field(i)
		if kind := field.Type.Kind(); reloadable[field.Name] || kind == reflect.Func || kind == reflect.Interface {
			continue
		}
		if !reflect.DeepEqual(was.Field(i).Interface(), is.Field(i).Interface()) {
			differ = append(differ, field.Name)
		}
	}
	if differ == nil {
		return nil
	}
	return fmt.Errorf("%s: a running backend cannot change that; restart it, or put back what was there", strings.Join(differ, ", "))
}
