package systemd

import (
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Socket is one that the service manager listens on for us.
type Socket struct {
	Name     string // FileDescriptorName=, or the name of the socket unit
	Listener net.Listener
}

// Sockets takes the sockets that were handed to this process, in their order, and the variables that tell of them, so that no child sees
// them again. The error names one that is no stream socket which listens; then all are closed.
func Sockets() ([]Socket, error) {
	var sockets []Socket
	var failed error
	for _, file := range activation.Files(true) {
		ln, err := net.FileListener(file)
		_ = file.Close() // the listener has a descriptor of its own
		if err != nil {
			failed = fmt.Errorf("socket %s of systemd: %w; want ListenStream= with Accept=no", file.Name(), err)
			continue
		}
		sockets = append(sockets, Socket{file.Name(), ln})
	}
	if failed != nil {
		for _, s := range sockets {
			_ = s.Listener.Close()
		}
		return nil, failed
	}
	return sockets, nil
}
