package filterd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The unit is one that systemd understands in whole, and that leaves the daemon
// next to nothing of the machine.
func TestSystemdUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze")
	}
	text, err := os.ReadFile("deploy/filterd.service")
	if err != nil {
		t.Fatal(err)
	}
	unit := filepath.Join(t.TempDir(), "filterd.service")
	// Neither is installed here.
	installed := strings.NewReplacer("/usr/local/bin/filterd", "/bin/true", "Documentation=man:filterd(1)\n", "").Replace(string(text))
	if err := os.WriteFile(unit, []byte(installed), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(analyze, "verify", unit).CombinedOutput(); err != nil || strings.Contains(string(out), "filterd.service") {
		t.Errorf("%v\n%s", err, out)
	}
	// The exposure goes from 0 to 100: what opens sockets and files has some.
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=20", unit).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
