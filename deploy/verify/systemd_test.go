package verify

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const mostExposure = "30" // of systemd-analyze security, in tenths: 3.0

// The units are what systemd takes without a word, and give the services little of the host.
func TestSystemd(t *testing.T) {
	units, err := filepath.Glob("../systemd/selvedge-*")
	if err != nil || len(units) != 5 {
		t.Fatalf("%v, %v", units, err)
	}
	dir := t.TempDir()
	var here []string
	for i, unit := range units {
		name := filepath.Base(unit)
		units[i] = name
		// systemd looks whether what it is to start is there.
		text := strings.ReplaceAll(file(t, "systemd/"+name), "/usr/local/bin/selvedge", binary(t))
		here = append(here, filepath.Join(dir, name))
		if err := os.WriteFile(here[i], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, here...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	for i, name := range units {
		if !strings.HasSuffix(name, ".service") {
			continue
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+mostExposure, here[i]).CombinedOutput()
		if err != nil {
			t.Errorf("systemd-analyze security %s: %v\n%s", name, err, out)
		}
		text := file(t, "systemd/"+name)
		for _, line := range regexp.MustCompile(`(?m)^Exec\w+=/usr/local/bin/selvedge (.*)$`).FindAllStringSubmatch(text, -1) {
			wantCommand(t, strings.Fields(line[1])...)
		}
		role := strings.TrimSuffix(strings.TrimPrefix(name, "selvedge-"), ".service")
		wants := []string{"\nType=notify\n", "\nUser=selvedge\n", "\nRestartPreventExitStatus=2\n"}
		if role == "bridge" { // it holds no sessions
			wants = append(wants, "\nLimitNOFILE=16384\n", "\nEnvironmentFile=-/etc/selvedge/secrets/bridge.env\n")
		} else {
			wants = append(wants, "\nLimitNOFILE=1048576\n", "\nStateDirectory=selvedge-"+role+"\n", "\nExecReload=/bin/kill -HUP $MAINPID\n")
		}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s has no %s", name, strings.TrimSpace(want))
			}
		}
		if role == "bridge" && regexp.MustCompile(`(?m)^(ExecReload|StateDirectory)=`).MatchString(text) {
			t.Errorf("%s: SIGHUP ends a bridge, and it keeps no state", name)
		}
		stop := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindStringSubmatch(text)
		if stop == nil {
			t.Errorf("%s has no TimeoutStopSec", name)
		} else if d, err := time.ParseDuration(stop[1] + "s"); err != nil || d < stopTime(t, role, file(t, "config/"+role+".yaml"))+5*time.Second {
			t.Errorf("%s: SIGKILL comes after %v (%v), too early for what %s.yaml says", name, d, err, role)
		}
	}
	for socket, listener := range map[string]string{"https": ":443", "http": ":80"} {
		text := file(t, "systemd/selvedge-edge-"+socket+".socket")
		if !strings.Contains(text, "\nFileDescriptorName="+socket+"\n") || !strings.Contains(text, "\nListenStream="+listener[1:]+"\n") {
			t.Errorf("%s does not listen on %s by that name", socket, listener)
		}
		if !strings.Contains(file(t, "config/edge.yaml"), `addr: "`+listener+`"`) {
			t.Errorf("edge.yaml has no listener on %s for the socket", listener)
		}
	}
}

// The sysctl file sets what Linux has, once each, and each line has a comment before it.
func TestSysctl(t *testing.T) {
	seen := make(map[string]bool)
	comment := false
	for _, line := range strings.Split(file(t, "sysctl/60-selvedge.conf"), "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			comment = true
		case line == "":
			comment = false
		default:
			m := regexp.MustCompile(`^(-?)([a-z][\w.-]+) = ([\d ]+)$`).FindStringSubmatch(line)
			if m == nil {
				t.Errorf("%q is no setting", line)
				continue
			}
			if seen[m[2]] || !comment {
				t.Errorf("%q: set twice, or without its reason", line)
			}
			seen[m[2]] = true
			if _, err := os.Stat("/proc/sys/" + strings.ReplaceAll(m[2], ".", "/")); err != nil && m[1] == "" {
				t.Errorf("this kernel has no %s: %v", m[2], err)
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d settings", len(seen))
	}
}
