package filterd_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"
)

// A release has what the Taskfile builds and checks, and every file that it names
// is there.
func TestReleaseConfig(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	var release struct {
		Builds []struct {
			Main                               string
			Env, Tags, Flags, Ldflags, Targets []string
		}
		Archives []struct{ Files []any }
		Checksum struct{ Algorithm string }
		SBOMs    []struct{ Artifacts string } `yaml:"sboms"`
	}
	if err := yaml.Unmarshal([]byte(read(".goreleaser.yaml")), &release); err != nil {
		t.Fatal(err)
	}
	if len(release.Builds) != 1 || len(release.Archives) != 1 || len(release.SBOMs) != 1 || release.Checksum.Algorithm != "sha256" {
		t.Fatalf("%+v", release)
	}
	taskfile, build := read("Taskfile.yml"), release.Builds[0]
	var promised []string
	for _, match := range regexp.MustCompile(`(?m)^ +- ((?:linux|darwin|windows)/\w+)$`).FindAllStringSubmatch(taskfile, -1) {
		promised = append(promised, strings.Replace(match[1], "/", "_", 1))
	}
	slices.Sort(promised)
	slices.Sort(build.Targets)
	if diff := cmp.Diff(promised, build.Targets); diff != "" {
		t.Errorf("platforms that 'task cross' builds, and that are released:\n%s", diff)
	}
	for _, platform := range promised {
		if !strings.Contains(taskfile, " "+strings.Replace(platform, "_", "/", 1)) {
			t.Errorf("release:check does not build %s", platform)
		}
	}
	got := []any{build.Main, build.Env, build.Tags, build.Flags}
	want := []any{"./cmd/filterd", []string{"CGO_ENABLED=0"}, []string{"urfave_cli_no_docs"}, []string{"-trimpath"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// The linker ignores a name that is not there.
	program := read("cmd/filterd/main.go")
	for _, match := range regexp.MustCompile(`-X main\.(\w+)=`).FindAllStringSubmatch(build.Ldflags[0], -1) {
		if !regexp.MustCompile(`(?m)^var .*\b` + match[1] + `\b.* string$`).MatchString(program) {
			t.Errorf("main has no variable %s", match[1])
		}
	}
	for _, file := range release.Archives[0].Files {
		if name, ok := file.(string); ok { // others are made by a hook
			if _, err := os.Stat(name); err != nil {
				t.Error(err)
			}
		}
	}
}

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
