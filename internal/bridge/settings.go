package bridge

import (
	"cmp"
	"errors"
	"os"
	"strings"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/backend/sender"
	"github.com/selvedge/selvedge/internal/config"
)

// FromSettings makes a Config of what file, environment and flags say. It opens nothing but token files.
func FromSettings(s *config.Settings, log *zap.Logger) (Config, error) {
	b := s.Bridge
	cfg := Config{
		Redis: b.Redis, AMQP: b.AMQP, NATS: b.NATS,
		Channel: b.Channel, Stream: b.Stream, Group: b.Group, Field: b.Field, Queue: b.Queue, Exchange: b.Exchange, Subject: b.Subject,
		User: b.User, Payload: b.Payload, ID: b.ID, Binary: b.Binary, Tries: b.Tries, Timeout: b.Timeout, InFlight: b.InFlight,
		Sender: sender.Config{Service: b.Service, Via: b.Via, Token: os.Getenv("SELVEDGE_TOKEN"), Logger: log},
		Admin:  s.Admin.Addr, Logger: log,
	}
	if b.Via != "" && !strings.Contains(b.Via, "://") {
		cfg.Sender.Via = "http://" + b.Via
	}
	cfg.Sender.Via = strings.TrimSuffix(cfg.Sender.Via, "/")
	if t := s.Services[cmp.Or(b.Service, "default")].RPCTLS; t != nil && (b.Via == "" || strings.HasPrefix(cfg.Sender.Via, "https://")) {
		cfg.Sender.TLS = (*sender.TLS)(t)
	}
	def(&cfg.Admin, DefaultAdmin)
	if cfg.Admin == "off" {
		cfg.Admin = ""
	}
	var errs [5]error
	switch b.Offline {
	case "", "ack":
	case "dead-letter":
		cfg.DeadLetterOffline = true
	default:
		errs[0] = s.Wrong("bridge.offline", b.Offline+": want ack or dead-letter")
	}
	if !s.Admin.TLS.Empty() {
		errs[1] = s.Wrong("admin.tls", "only an edge's admin listener speaks TLS; leave this out for a bridge, and listen on loopback")
	}
	cfg.AdminToken, errs[2] = s.Token("admin.token_file", s.Admin.TokenFile)
	if b.TokenFile != "" {
		cfg.Sender.Token, errs[3] = s.Token("bridge.token_file", b.TokenFile)
	}
	switch {
	case b.Via == "":
		cfg.Sender.Membership, errs[4] = s.Membership()
	case s.Has("consul.addr") || s.Backends != "" || s.Registry != "":
		errs[4] = s.Wrong("bridge.via", "it goes through one process, which knows the members; leave consul, backends and registry out")
	}
	return cfg, errors.Join(errs[:]...)
}
