package tunnel

import "fmt"

// Engine is how bytes get from one descriptor to the other.
type Engine uint8

const (
	// Auto copies small messages and splices bulk. The default.
	Auto Engine = iota
	// Copy reads into the loop's buffer and writes on: the least work for small messages.
	Copy
	// Splice moves pages through a pipe and never touches the bytes: the least work for bulk. Linux only; elsewhere it
	// means Copy.
	Splice
)

var engineNames = [...]string{Auto: "auto", Copy: "copy", Splice: "splice"}

// String returns the name that ParseEngine understands.
func (e Engine) String() string {
	if int(e) < len(engineNames) {
		return engineNames[e]
	}
	return fmt.Sprintf("engine(%d)", uint8(e))
}

// ParseEngine returns the engine of the name: auto, copy or splice; the empty string means auto.
func ParseEngine(name string) (Engine, error) {
	if name == "" {
		return Auto, nil
	}
	for e, n := range engineNames {
		if n == name {
			return Engine(e), nil
		}
	}
	return Auto, fmt.Errorf("tunnel: engine %q: want auto, copy or splice", name)
}
