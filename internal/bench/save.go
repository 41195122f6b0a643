package bench

import (
	"encoding/json"
	"os"
	"path/filepath"
)

// Report is what a benchmark found.
type Report interface {
	Table() *Table
	name() string
	plot() plot
}

func (r *SessionsReport) name() string { return r.Kind }
func (r *PushReport) name() string     { return r.Kind }

// Save writes the report to dir, which it makes: all figures as NAME.json, a plot as NAME.svg.
func Save(dir string, r Report) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, r.name()+".json"), append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, r.name()+".svg"), r.plot().svg(), 0o644)
}
