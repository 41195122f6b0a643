package backend

import (
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/selvedge/selvedge/internal/config"
)

// What the environment, or a file, says of sessions arrives.
func TestFromSettings(t *testing.T) {
	s, err := config.Load(config.Sources{Env: []string{
		"SELVEDGE_BACKEND__PING_EVERY=-1s", "SELVEDGE_BACKEND__PONG_TIMEOUT=3s", "SELVEDGE_BACKEND__ON_FULL=drop", "SELVEDGE_BACKEND__COMPRESS=true",
		"SELVEDGE_BACKEND__LIMITS__SESSIONS=7", "SELVEDGE_BACKEND__LIMITS__PER_USER=3", "SELVEDGE_BACKEND__LIMITS__MESSAGES_PER_SECOND=0.5",
	}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := FromSettings(s, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	if cfg.PingEvery != -time.Second || cfg.PongTimeout != 3*time.Second || cfg.OnFull != FullDrop || !cfg.Compress || cfg.Limits != (Limits{7, 3, 0.5}) {
		t.Errorf("%+v", cfg)
	}
}

// What a member would not do is not passed over in silence; an empty tls, as the contract shows it, is none.
func TestSettingsRefuseTLS(t *testing.T) {
	some := &config.ServerTLS{Cert: "c.pem", Key: "k.pem"}
	for key, s := range map[string]*config.Settings{
		"admin.tls": {Admin: config.Admin{TLS: some}},
		"":          {Admin: config.Admin{TLS: &config.ServerTLS{}}, Backend: config.Backend{RPC: config.RPC{TLS: &config.RPCTLS{}}}},
	} {
		s.Backends = "b1=127.0.0.1:1"
		_, err := FromSettings(s, nil)
		if key == "" && err != nil || key != "" && (err == nil || !strings.Contains(err.Error(), key)) {
			t.Errorf("%q: %v", key, err)
		}
	}
}
