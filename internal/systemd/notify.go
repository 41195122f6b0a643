package systemd

import (
	"github.com/coreos/go-systemd/v22/daemon"
	"go.uber.org/zap"
)

// Notifier tells the service manager what this process does. The zero Notifier is silent about failures.
type Notifier struct{ Log *zap.Logger }

// Ready says that the process serves, after its start or a reload.
func (n Notifier) Ready() { n.tell(daemon.SdNotifyReady) }

// Reloading says that a reload has begun; Ready must follow, whatever comes of it.
func (n Notifier) Reloading() {
	n.tell(daemon.SdNotifyReloading + "\n" + daemon.SdNotifyMonotonicUsec())
}

// Stopping says that the process drains.
func (n Notifier) Stopping() { n.tell(daemon.SdNotifyStopping) }

func (n Notifier) tell(state string) {
	if _, err := daemon.SdNotify(false, state); err != nil && n.Log != nil {
		n.Log.Warn("systemd cannot be told of a state", zap.String("state", state), zap.Error(err))
	}
}
