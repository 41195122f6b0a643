// Command selvedge is the edge router, the reference backend and the operator's tools in one binary; `selvedge --help` lists them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/selvedge/selvedge/internal/config"
	"github.com/selvedge/selvedge/internal/systemd"
)

// Exit codes, as the documentation has them.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2 // the command line or the configuration is wrong
	exitNobody  = 3 // a push that reached nobody
	exitAtOnce  = 130
	programName = "selvedge"
)

// version is set when a release is built.
var version = "dev"

// exitError is an error with an exit code of its own.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// usage marks err as the user's to mend.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &exitError{exitUsage, err}
}

func main() {
	ctx, stop := untilSignal()
	err := newRoot().ExecuteContext(ctx)
	stop()
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if text := err.Error(); text != "" {
		fmt.Fprintln(os.Stderr, programName+": "+text)
	}
	var own *exitError
	if errors.As(err, &own) {
		return own.code
	}
	return exitFailed
}

// untilSignal returns a context that ends at the first SIGTERM or interrupt, after which processes drain. A second one stops
// at once.
func untilSignal() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGTERM, os.Interrupt)
	go func() {
		<-signals
		cancel()
		<-signals
		os.Exit(exitAtOnce)
	}()
	return ctx, cancel
}

// process is an edge or a backend.
type process interface {
	Ready() <-chan struct{}
	Run(ctx context.Context) error
}

// reloading runs a process that reloads until it ends, and keeps systemd informed.
func reloading(ctx context.Context, p process, r *config.Reloader, log *zap.Logger) error {
	systemd := systemd.Notifier{Log: log}
	r.Begin, r.End = systemd.Reloading, systemd.Ready
	hangups := make(chan os.Signal, 1) // one that waits stands for all
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		select {
		case <-p.Ready():
			systemd.Ready()
			r.Run(ctx, hangups)
			systemd.Stopping()
		case <-ctx.Done():
		}
	})
	defer watching.Wait()
	defer cancel()
	return p.Run(ctx)
}

// global are the flags that every command has.
type global struct {
	logLevel, logFormat, output string
}

func newRoot() *cobra.Command {
	g := new(global)
	root := &cobra.Command{
		Use:           programName,
		Short:         "An edge router for long-lived connections, and the service behind it",
		Long:          "Selvedge brings each user's WebSocket to the backend that owns the user, and pushes to users by id without a broker.",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.SetVersionTemplate("{{.Version}}\n")
	flags := root.PersistentFlags()
	flags.StringVar(&g.logLevel, "log-level", "info", "least severe `LEVEL` that is logged: debug, info, warn or error")
	flags.StringVar(&g.logFormat, "log-format", "console", "`FORMAT` of the log on standard error: console or json")
	flags.StringVar(&g.output, "output", "text", "`FORMAT` of what is printed: text or json")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage(err) })
	root.AddCommand(newDev(g), newEdge(g), newBackend(g), newPush(g), newPresence(g), newKick(g), newRing(g), newBridge(g), newDoctor(g), newCheck(g), newVersion(g), newMan(g))
	root.AddCommand(newHealth(g))
	complete(root)
	return root
}

// logger builds the log that the flags ask for.
func (g *global) logger() (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(g.logLevel)
	if err != nil {
		return nil, usage(fmt.Errorf("--log-level %q: want debug, info, warn or error", g.logLevel))
	}
	cfg := zap.NewProductionConfig()
	cfg.Level = zap.NewAtomicLevelAt(level)
	cfg.Sampling = nil
	cfg.DisableCaller, cfg.DisableStacktrace = true, true
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.EncoderConfig.EncodeDuration = zapcore.StringDurationEncoder
	switch g.logFormat {
	case "json":
	case "console":
		cfg.Encoding = "console"
		cfg.EncoderConfig.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
	default:
		return nil, usage(fmt.Errorf("--log-format %q: want console or json", g.logFormat))
	}
	return cfg.Build()
}

// json tells whether data is to be printed as JSON.
func (g *global) json() (bool, error) {
	switch g.output {
	case "json":
		return true, nil
	case "text":
		return false, nil
	default:
		return false, usage(fmt.Errorf("--output %q: want text or json", g.output))
	}
}
