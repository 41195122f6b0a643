package bench

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel end cmd when the thread that started it ends; the group is what kill ends.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
