// Command backend compares what package backend takes with what servers on other WebSocket packages take: bytes per idle session,
// processor time per echoed message and per delivery of a broadcast. It is a module of its own, so that the peers are no dependencies of
// Selvedge; `make bench-backend` runs it.
//
// Each contender is a process of its own, and its processor time is what is measured; the clients are in this process and are not counted. A
// push's sender is in the contender's process and is. Figures are medians over rounds, in which all contenders have their turn, in an order
// that changes. All of it is on loopback, where a write delivers to the reader's socket in the writer's time: about that, nothing can be
// done, and the bare contender, a loop of write(2), shows how much it is.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// config says how much is done.
type config struct {
	Rounds     int `json:"rounds"`
	Idle       int `json:"idle_sessions"`
	Echoing    int `json:"echo_sessions"`
	Echoes     int `json:"echoes_per_session"`
	Broadcasts int `json:"broadcasts"`
	Users      int `json:"push_many_users"`
	Bytes      int `json:"message_bytes"`
}

// row is a measurement of one contender; 0 where it takes no part.
type row struct {
	Contender string `json:"contender"`
	figures
	Rounds []figures `json:"rounds"`
}

type figures struct {
	IdleBytes  float64 `json:"idle_bytes_per_session"`
	EchoCPU    float64 `json:"echo_cpu_us"`
	DeliverCPU float64 `json:"broadcast_cpu_us_per_delivery"`
	ManyCPU    float64 `json:"push_many_cpu_us_per_delivery"`
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "serve" {
		if err := serve(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	cfg := config{Rounds: 5, Idle: 4800, Echoing: 1000, Echoes: 60, Broadcasts: 40, Users: 10_000, Bytes: 128}
	flag.IntVar(&cfg.Rounds, "rounds", cfg.Rounds, "rounds, of which the medians are taken")
	short := flag.Bool("short", false, "take seconds, to see that it works")
	out := flag.String("out", filepath.Join("..", "..", "..", "bench", "out"), "`DIRECTORY` for JSON")
	flag.Parse()
	if *short {
		cfg = config{Rounds: 1, Idle: 100, Echoing: 50, Echoes: 5, Broadcasts: 3, Users: 400, Bytes: 128}
	}
	rows, err := run(cfg)
	if err == nil {
		err = show(cfg, rows, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench backend:", err)
		os.Exit(1)
	}
}

func run(cfg config) ([]row, error) {
	rows := make([]row, len(contenders))
	for i, c := range contenders {
		rows[i].Contender = c.name
	}
	for round := range cfg.Rounds {
		for n := range contenders {
			i := (n + round) % len(contenders)
			f, err := measure(cfg, contenders[i].name)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", contenders[i].name, err)
			}
			fmt.Fprintf(os.Stderr, "round %d of %d, %s: %.0f bytes, %.1f us per echo, %.1f us per delivery, %.1f us by PushMany\n",
				round+1, cfg.Rounds, contenders[i].name, f.IdleBytes, f.EchoCPU, f.DeliverCPU, f.ManyCPU)
			rows[i].Rounds = append(rows[i].Rounds, f)
		}
	}
	for i := range rows {
		rows[i].figures = medians(rows[i].Rounds)
	}
	return rows, nil
}

func medians(rounds []figures) figures {
	of := func(field func(figures) float64) float64 {
		var list []float64
		for _, r := range rounds {
			list = append(list, field(r))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	return figures{
		of(func(f figures) float64 { return f.IdleBytes }), of(func(f figures) float64 { return f.EchoCPU }),
		of(func(f figures) float64 { return f.DeliverCPU }), of(func(f figures) float64 { return f.ManyCPU }),
	}
}

func show(cfg config, rows []row, out string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "\tbytes per idle session\tCPU us per echo\tper delivery of a broadcast\tper delivery by PushMany\t\n")
	for _, r := range rows {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t\n", r.Contender, cell(r.IdleBytes, 0), cell(r.EchoCPU, 1), cell(r.DeliverCPU, 2), cell(r.ManyCPU, 2))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	fmt.Printf("%d idle; %d echo %d times; %d bytes to %d, %d times; to %d users; medians of %d rounds\n\n",
		cfg.Idle, cfg.Echoing, cfg.Echoes, cfg.Bytes, warmUp+cfg.Idle, cfg.Broadcasts, cfg.Users, cfg.Rounds)
	musts := check(rows)
	for _, m := range musts {
		fmt.Println(m)
	}
	text, err := json.MarshalIndent(map[string]any{"benchmark": "backend", "config": cfg, "rows": rows, "musts": musts}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "backend.json"), append(text, '\n'), 0o644)
}

func cell(figure float64, digits int) string {
	if figure == 0 {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, figure)
}
