package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/filterd/filterd/internal/redistest"
)

// These tests stand in for a container engine: they load docker-compose.yml as
// Compose does, read the Dockerfile, and hold both against the repository and
// the binary they name.

const root = ".."

const buildTags = "urfave_cli_no_docs"

func TestCompose(t *testing.T) {
	p := loadCompose(t)

	if got, want := p.ServiceNames(), []string{"filterd", "redis"}; !slices.Equal(got, want) {
		t.Fatalf("services: got %v, want %v", got, want)
	}
	for _, name := range p.ServiceNames() {
		s := p.Services[name]
		if s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) < 2 || s.HealthCheck.Test[0] != "CMD" {
			t.Errorf("%s: want a healthcheck of the exec form, got %+v", name, s.HealthCheck)
		} else if h := s.HealthCheck; h.Interval == nil || h.Timeout == nil || h.Retries == nil || h.StartPeriod == nil {
			t.Errorf("%s: the healthcheck leaves interval, timeout, retries or start_period open", name)
		}
		if s.Restart != types.RestartPolicyUnlessStopped {
			t.Errorf("%s: restart: got %q", name, s.Restart)
		}
		if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < 10*time.Second {
			t.Errorf("%s: want a stop_grace_period that a drain fits in, got %v", name, s.StopGracePeriod)
		}
		if s.Privileged {
			t.Errorf("%s: privileged", name)
		}
	}

	t.Run("redis", func(t *testing.T) {
		s := p.Services["redis"]
		_, tag, _ := strings.Cut(s.Image, ":")
		if !regexp.MustCompile(`^\d+\.\d+`).MatchString(tag) {
			t.Errorf("image %q: want a tag that pins major and minor version", s.Image)
		}
		if len(s.Ports) != 1 {
			t.Fatalf("ports: got %+v, want one", s.Ports)
		}
		if port := s.Ports[0]; port.Target != 6379 || port.Published != "6379" || port.HostIP != "127.0.0.1" {
			t.Errorf("port: got %+v, want 127.0.0.1:6379:6379", port)
		}
		if got, want := []string(s.HealthCheck.Test), []string{"CMD", "redis-cli", "ping"}; !slices.Equal(got, want) {
			t.Errorf("healthcheck: got %q, want %q", got, want)
		}
		i := slices.IndexFunc(s.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == "/data" })
		if i < 0 || s.Volumes[i].Type != types.VolumeTypeVolume {
			t.Fatalf("volumes: got %+v, want a named volume on /data", s.Volumes)
		}
		if _, ok := p.Volumes[s.Volumes[i].Source]; !ok {
			t.Errorf("volume %q is not declared", s.Volumes[i].Source)
		}
		if args := strings.Join(s.Command, " "); !strings.HasPrefix(args, "redis-server ") || !strings.Contains(args, "--appendonly yes") {
			t.Errorf("command %q: want redis-server with --appendonly yes", args)
		}
	})

	t.Run("filterd", func(t *testing.T) {
		s := p.Services["filterd"]
		if dep, ok := s.DependsOn["redis"]; !ok || dep.Condition != types.ServiceConditionHealthy {
			t.Errorf("depends_on: got %+v, want redis to be healthy", s.DependsOn)
		}
		url := s.Environment["REDIS_URL"]
		if url == nil || *url != "redis://redis:6379/0" {
			t.Errorf("REDIS_URL: got %v, want the redis service", url)
		}
		if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("want read_only, cap_drop ALL and no-new-privileges; got %v, %v, %v", s.ReadOnly, s.CapDrop, s.SecurityOpt)
		}
		if uid, _, _ := strings.Cut(s.User, ":"); uid == "" || uid == "0" || uid == "root" {
			t.Errorf("user: got %q, want an unprivileged one", s.User)
		}
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			if !v.ReadOnly {
				t.Errorf("%s: want a read-only mount", v.Target)
			}
			if _, err := os.Stat(v.Source); err != nil {
				t.Error(err)
			}
		}
		if s.Build == nil {
			t.Fatal("want a build")
		}
		if got, want := s.Build.Context, abs(t, root); got != want {
			t.Errorf("build context: got %s, want %s", got, want)
		}
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Error(err)
		}
	})
}

func TestDockerfilePaths(t *testing.T) {
	df := readDockerfile(t)
	if len(df.stages) != 2 {
		t.Fatalf("stages: got %d, want a build and a final one", len(df.stages))
	}
	ignored := dockerignore(t)
	for _, c := range df.copies {
		if c.from != "" {
			if !slices.ContainsFunc(df.stages, func(s string) bool { return strings.HasSuffix(s, " AS "+c.from) }) {
				t.Errorf("COPY --from=%s names no stage", c.from)
			}
			continue
		}
		for _, src := range c.sources {
			if _, err := os.Stat(filepath.Join(root, src)); err != nil {
				t.Errorf("COPY: %v", err)
			}
			if src != "." && ignored(src) {
				t.Errorf("COPY %s: .dockerignore leaves it out", src)
			}
		}
	}
	for _, run := range df.runs {
		for _, word := range strings.Fields(run) {
			if !strings.HasPrefix(word, "./") {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, word)); err != nil {
				t.Errorf("RUN: %v", err)
			}
		}
	}
	if final := df.stages[len(df.stages)-1]; !strings.Contains(final, ":") || strings.Contains(final, ":latest") {
		t.Errorf("FROM %s: want a pinned tag", final)
	}
	if uid, _, _ := strings.Cut(df.user, ":"); !regexp.MustCompile(`^[1-9]\d*$`).MatchString(uid) {
		t.Errorf("USER %q: want an unprivileged one, by number", df.user)
	}
}

// TestDockerignore: everything that the binary is compiled from reaches the
// builder, embedded files included.
func TestDockerignore(t *testing.T) {
	ignored := dockerignore(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags", buildTags,
		"-json=Dir,Module,GoFiles,EmbedFiles", "./cmd/filterd")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); dec.More(); {
		var pkg struct {
			Dir                 string
			Module              *struct{ Main bool }
			GoFiles, EmbedFiles []string
		}
		if err := dec.Decode(&pkg); err != nil {
			t.Fatal(err)
		}
		if pkg.Module == nil || !pkg.Module.Main {
			continue
		}
		for _, f := range append(pkg.GoFiles, pkg.EmbedFiles...) {
			rel, err := filepath.Rel(abs(t, root), filepath.Join(pkg.Dir, f))
			if err != nil {
				t.Fatal(err)
			}
			if files++; ignored(rel) {
				t.Errorf("%s is compiled into filterd, and .dockerignore leaves it out", rel)
			}
		}
	}
	if files < 10 {
		t.Errorf("go list named only %d files", files)
	}
}

// TestContainerCommands: each command, flag and path that Compose and the
// Dockerfile hand to filterd is one that the binary and the image have.
func TestContainerCommands(t *testing.T) {
	p, df, bin := loadCompose(t), readDockerfile(t), buildFilterd(t)
	s := p.Services["filterd"]

	// Paths in the image, and those that a mount then covers.
	inImage := map[string]string{}
	binary := ""
	for _, c := range df.copies {
		switch {
		case c.stage < len(df.stages)-1:
		case c.from != "":
			binary = c.dest
		default:
			inImage[c.dest] = filepath.Join(root, c.sources[0])
		}
	}
	composed := map[string]string{}
	for _, v := range s.Volumes {
		composed[v.Target] = v.Source
	}

	entry := df.entrypoint
	if len(s.Entrypoint) > 0 {
		entry = s.Entrypoint
	}
	command := df.cmd
	if len(s.Command) > 0 {
		command = s.Command
	}
	for _, c := range []struct {
		name  string
		argv  []string
		files map[string]string
	}{
		{"image", slices.Concat(df.entrypoint, df.cmd), inImage},
		{"image's healthcheck", df.healthcheck, inImage},
		{"service", slices.Concat(entry, command), composed},
		{"service's healthcheck", s.HealthCheck.Test[1:], composed},
	} {
		t.Run(c.name, func(t *testing.T) {
			if len(c.argv) < 2 {
				t.Fatalf("got %q, want the binary and a command", c.argv)
			}
			if c.argv[0] != binary {
				t.Errorf("runs %s, and the image has %s", c.argv[0], binary)
			}
			name := c.argv[1]
			out, err := exec.CommandContext(t.Context(), bin, name, "--help").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "filterd "+name) {
				t.Fatalf("filterd %s --help: %v\n%s", name, err, out)
			}
			for _, arg := range c.argv[2:] {
				if strings.HasPrefix(arg, "-") {
					flag := regexp.MustCompile(`(?m)(^|[\s,])` + regexp.QuoteMeta(arg) + `([\s,=]|$)`)
					if !flag.Match(out) {
						t.Errorf("filterd %s has no flag %s:\n%s", name, arg, out)
					}
				} else if strings.HasPrefix(arg, "/") {
					if _, err := os.Stat(hostPath(arg, c.files)); err != nil {
						t.Errorf("%s: %v", arg, err)
					}
				}
			}
		})
	}
}

// TestContainerHealthcheck runs the healthchecks' own arguments beside the image's
// own command, with the rules that it starts with: while Redis is there, while it
// is gone, while the rules are being edited, and when the daemon is gone.
func TestContainerHealthcheck(t *testing.T) {
	p, df, bin := loadCompose(t), readDockerfile(t), buildFilterd(t)
	s := p.Services["filterd"]
	if !slices.Equal(df.healthcheck, s.HealthCheck.Test[1:]) {
		t.Errorf("the image's healthcheck is %q, the service's %q", df.healthcheck, s.HealthCheck.Test[1:])
	}
	rules, err := os.ReadFile(filepath.Join(root, "deploy/filterd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "filterd.yaml")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(string(rules))
	server := redistest.Start(t)
	env := append(os.Environ(), "REDIS_URL=redis://"+server.Addr+"/0", "FILTERD_LISTEN="+freeAddr(t))
	command := func(ctx context.Context, args []string) *exec.Cmd {
		args = slices.Clone(args)
		for i, arg := range args {
			args[i] = hostPath(arg, map[string]string{"/etc/filterd": dir})
		}
		cmd := exec.CommandContext(ctx, bin, args...)
		cmd.Env = env
		return cmd
	}
	exit := func(args []string) (code int, out []byte) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(*s.HealthCheck.Timeout))
		defer cancel()
		cmd := command(ctx, args)
		out, err := cmd.CombinedOutput()
		var exited *exec.ExitError
		if ctx.Err() != nil || err != nil && !errors.As(err, &exited) {
			t.Fatalf("filterd %v: %v, %v\n%s", args, err, ctx.Err(), out)
		}
		return cmd.ProcessState.ExitCode(), out
	}
	want := func(state string, code int) {
		t.Helper()
		var got int
		var out []byte
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if got, out = exit(df.healthcheck[1:]); got == code {
				return
			}
		}
		t.Fatalf("%s: the healthcheck exits with %d, want %d\n%s", state, got, code, out)
	}

	if code, out := exit([]string{"test", "-c", "/etc/filterd/filterd.yaml"}); code != 0 {
		t.Errorf("the image's rules fail their tests:\n%s", out)
	}
	want("no daemon", 3)
	daemon := command(t.Context(), df.cmd)
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	want("it runs", 0)
	write("rules: {half: {from: ")
	if code, out := exit(df.healthcheck[1:]); code == 0 {
		t.Errorf("a file without a section server says where the daemon is: %s", out)
	}
	write(strings.Replace(string(rules), "when: ", "when: oops.", 1))
	want("the rules are being edited", 0)
	server.Stop()
	want("redis is gone", 1)
	server.Restart()
	want("redis is back", 0)
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = daemon.Wait() // killed
	want("the daemon is gone", 3)
}

func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	opts, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithWorkingDirectory(abs(t, root)),
		cli.WithResolvedPaths(true),
		cli.WithNormalization(true),
		cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A dockerfile is what these tests need of one.
type dockerfile struct {
	stages                       []string
	copies                       []dockerCopy
	runs                         []string
	user                         string
	entrypoint, cmd, healthcheck []string
}

type dockerCopy struct {
	stage   int
	from    string // empty: the build context
	sources []string
	dest    string
}

func readDockerfile(t *testing.T) *dockerfile {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy", "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	df := &dockerfile{}
	lines := regexp.MustCompile(`(?m)^\s*#.*\n`).ReplaceAllString(string(text), "")
	lines = strings.ReplaceAll(lines, "\\\n", " ")
	for line := range strings.Lines(lines) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		rest = strings.TrimSpace(rest)
		switch word {
		case "":
		case "FROM":
			df.stages = append(df.stages, rest)
		case "COPY":
			c := dockerCopy{stage: len(df.stages) - 1}
			var words []string
			for _, w := range strings.Fields(rest) {
				if from, ok := strings.CutPrefix(w, "--from="); ok {
					c.from = from
				} else {
					words = append(words, w)
				}
			}
			if len(words) < 2 {
				t.Fatalf("COPY %s: want sources and a destination", rest)
			}
			c.sources, c.dest = words[:len(words)-1], words[len(words)-1]
			df.copies = append(df.copies, c)
		case "RUN":
			df.runs = append(df.runs, rest)
		case "USER":
			df.user = rest
		case "ENTRYPOINT":
			df.entrypoint = execForm(t, rest)
		case "CMD":
			df.cmd = execForm(t, rest)
		case "HEALTHCHECK":
			_, command, ok := strings.Cut(rest, "CMD ")
			if !ok {
				t.Fatalf("HEALTHCHECK %s: no CMD", rest)
			}
			df.healthcheck = execForm(t, command)
		case "WORKDIR", "ARG":
		default:
			t.Fatalf("instruction %s is new to this test", word)
		}
	}
	return df
}

// execForm refuses the shell form: the image has no shell.
func execForm(t *testing.T, s string) []string {
	t.Helper()
	var argv []string
	if err := json.Unmarshal([]byte(s), &argv); err != nil {
		t.Fatalf("%s: want the exec form: %v", s, err)
	}
	return argv
}

func dockerignore(t *testing.T) func(rel string) bool {
	t.Helper()
	f, err := os.Open(filepath.Join(root, ".dockerignore"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	patterns, err := ignorefile.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	m, err := patternmatcher.New(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return func(rel string) bool {
		ignored, err := m.MatchesOrParentMatches(filepath.ToSlash(rel))
		if err != nil {
			t.Fatal(err)
		}
		return ignored
	}
}

// hostPath says where a path of the container lies in the repository.
func hostPath(p string, mounts map[string]string) string {
	for target, source := range mounts {
		if p == target {
			return source
		}
		if rest, ok := strings.CutPrefix(p, target+"/"); ok {
			return filepath.Join(source, filepath.FromSlash(path.Clean(rest)))
		}
	}
	return p
}

func buildFilterd(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "filterd")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-tags", buildTags, "-o", bin, "./cmd/filterd")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return bin
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprintf("127.0.0.1:%d", l.Addr().(*net.TCPAddr).Port)
}

func abs(t *testing.T, p string) string {
	t.Helper()
	a, err := filepath.Abs(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
