package edge

import (
	"bytes"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// logQueueBytes bounds the lines that wait for the disk.
const logQueueBytes = 1 << 20

// logFile appends lines to a file in a goroutine of its own: those who write them are loops of the reactor, too, which must not wait for
// a disk. Lines that find the queue full, or that cannot be written, are lost, counted, and the log says so.
type logFile struct {
	path string
	log  *zap.Logger
	lost prometheus.Counter // lines
	done chan struct{}

	mu     sync.Mutex
	queue  []byte // whole lines
	wakes  *sync.Cond
	closed bool

	fileMu sync.Mutex
	file   *os.File // nil before open

	// Owned by run.
	torn    bool // the last line in the file is not whole
	failing bool
}

func newLogFile(path string, log *zap.Logger, lost prometheus.Counter) *logFile {
	f := &logFile{path: path, log: log, lost: lost, done: make(chan struct{})}
	f.wakes = sync.NewCond(&f.mu)
	return f
}

// open begins to write. close must follow.
func (f *logFile) open() error {
	file, err := f.openFile()
	if err != nil {
		return err
	}
	f.fileMu.Lock()
	f.file = file
	f.fileMu.Unlock()
	go f.run()
	return nil
}

func (f *logFile) openFile() (*os.File, error) {
	if f.path == "stdout" {
		return os.Stdout, nil
	}
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
	if err != nil {
		return nil, fmt.Errorf("access log: %w; name a file in access_log.path that can be written", err)
	}
	return file, nil
}

// reopen goes on in the file that is called path now. With an error it goes on in the old one.
func (f *logFile) reopen() error {
	f.fileMu.Lock()
	defer f.fileMu.Unlock()
	if f.file == nil || f.path == "stdout" {
		return nil
	}
	file, err := f.openFile()
	if err != nil {
		return err
	}
	_ = f.file.Close() // every line is in it
	f.file = file
	return nil
}

// Write takes a line; it does not wait.
func (f *logFile) Write(line []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.queue)+len(line) > logQueueBytes {
		f.lost.Inc()
		return len(line), nil
	}
	f.queue = append(f.queue, line...)
	f.wakes.Signal()
	return len(line), nil
}

// Sync does nothing: lines are on their way already.
func (f *logFile) Sync() error { return nil }

func (f *logFile) run() {
	defer close(f.done)
	var lines []byte
	for {
		f.mu.Lock()
		for len(f.queue) == 0 && !f.closed {
			f.wakes.Wait()
		}
		lines, f.queue = f.queue, lines[:0]
		f.mu.Unlock()
		if len(lines) == 0 {
			return
		}
		f.append(lines)
	}
}

func (f *logFile) append(lines []byte) {
	f.fileMu.Lock()
	defer f.fileMu.Unlock()
	var err error
	if f.torn {
		_, err = f.file.WriteString("\n")
	}
	n := 0
	if err == nil {
		n, err = f.file.Write(lines)
	}
	if n > 0 {
		f.torn = lines[n-1] != '\n'
	}
	if err == nil {
		f.failing = false
		return
	}
	f.lost.Add(float64(bytes.Count(lines[n:], []byte("\n"))))
	if !f.failing { // once, until it works again
		f.failing = true
		f.log.Error("access log: lines are lost; see selvedge_edge_access_log_lost_total", zap.Error(err))
	}
}

// close writes what waits, for as long as connections have to end in order, and closes the file.
func (f *logFile) close() {
	f.mu.Lock()
	f.closed = true
	f.wakes.Signal()
	f.mu.Unlock()
	patience := time.NewTimer(farewell)
	defer patience.Stop()
	select {
	case <-f.done:
	case <-patience.C:
		f.log.Error("access log: the last lines are lost: its file, or what reads it, takes none", zap.String("path", f.path))
		return
	}
	f.fileMu.Lock()
	defer f.fileMu.Unlock()
	if f.path != "stdout" {
		_ = f.file.Close()
	}
	f.file = nil
}
