package bridge

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/testkit"
)

// The environment stands for the file's keys, so that no password must stand in a file or on a command line.
func TestFromSettings(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "bridge.yaml")
	text := "bridge: {stream: chat, field: body, offline: dead-letter, in_flight: 7, via: 127.0.0.1:8081/}\nadmin: {addr: \"off\"}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	settings, err := config.Load(config.Sources{File: file, Env: []string{"SELVEDGE_BRIDGE__REDIS=redis://u:hush@h", "SELVEDGE_BRIDGE__BINARY=true"}})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := FromSettings(settings, zap.NewNop())
	if err != nil || cfg.Redis != "redis://u:hush@h" || cfg.Stream != "chat" || !cfg.Binary || !cfg.DeadLetterOffline || cfg.InFlight != 7 ||
		cfg.Sender.Via != "http://127.0.0.1:8081" || cfg.Admin != "" {
		t.Errorf("%+v, %v", cfg, err)
	}
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
}

// Whatever goes wrong with a broker, its password is not in the log, nor in what the operator's listener says.
func TestPasswordsStayHidden(t *testing.T) {
	nobody := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	for _, cfg := range []Config{
		{AMQP: "amqp://user:hush@" + nobody, Queue: "q"},
		{Redis: "redis://user:hush@" + nobody, Channel: "c"},
		{Redis: "redis://user:hush@" + nobody, Stream: "s"},
		{NATS: "nats://user:hush@" + nobody, Subject: "s"},
		{NATS: "nats://user:hush@" + nobody, Stream: "s"},
		{Redis: strings.Replace(testkit.StartRedis(t).URL, "redis://", "redis://user:hush@", 1), Stream: "s"}, // who refuses it
	} {
		log := new(strings.Builder)
		cfg.Logger = zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(log)), zap.DebugLevel))
		cfg.Metrics = prometheus.NewRegistry()
		cfg.Sender.Via = "http://" + nobody
		b, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- b.Run(ctx) }()
		testkit.Eventually(t, 20*time.Second, func() bool {
			err := b.isReady()
			return err != nil && strings.HasPrefix(err.Error(), "the broker is not read")
		}, "it to fail")
		text := b.isReady().Error()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if text += log.String(); strings.Contains(text, "hush") || !strings.Contains(text, "trying again") {
			t.Errorf("%s: %s", b.source.kind(), text)
		}
	}
}
