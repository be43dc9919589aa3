// Command native-plugin is an NRI plugin as a daemon of its own, on upstream's stub. With its
// defaults it is the benchmark's baseline: one annotation, one variable and one log line for each
// CreateContainer. README.md lists what tests can make it do besides.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "native-plugin:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	p := &plugin{trace: io.Discard}
	flags := flag.NewFlagSet("native-plugin", flag.ContinueOnError)
	socket := flags.String("socket", api.DefaultSocketPath, "the runtime's NRI `socket`")
	index := flags.String("idx", "10", "two digits: the plugin's place among the others")
	name := flags.String("name", "native", "the plugin's name")
	only := flags.String("events", "", "subscribe to these `events` only, separated by commas")
	trace := flags.Bool("trace", false, "print one JSON line on stdout for each event")
	commands := flags.Bool("commands", false, "take JSON lines on stdin; end when it closes")
	flags.Var(pairs{&p.annotations}, "annotation", "`key=value` for each container; repeatable")
	flags.Var(pairs{&p.env}, "env", "`KEY=VALUE` for each container; repeatable")
	flags.Int64Var(&p.memoryLimit, "memory-limit", 0, "limit in `bytes` for each container")
	flags.BoolVar(&p.validate, "validate", false, "also validate the others' adjustments")
	flags.StringVar(&p.reject, "reject-env", "", "as a validator reject an adjustment of this `KEY`")
	flags.Var(pairs{&p.behaviour.fail}, "fail", "`Event=text`: answer with that error; repeatable")
	flags.Var(pairs{&p.behaviour.hang}, "hang", "`Event=duration`: answer so late; repeatable")
	flags.StringVar(&p.behaviour.drop, "drop", "", "close the connection instead of answering `Event`")
	again := flags.Duration("again", 0, "connect again so long after a lost or refused connection")
	flags.StringVar(&p.behaviour.leave, "leave", "", "close the connection just after answering `Event`")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	if *trace {
		p.trace = os.Stdout
	}
	if *only != "" {
		mask, err := api.ParseEventMask(*only)
		if err != nil {
			return err
		}
		p.events = mask
	}

	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer cancel()
	if *commands {
		go func() { defer cancel(); p.obey(os.Stdin) }()
	}
	for {
		err := p.live(ctx, *socket, *index, *name)
		if *again == 0 || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(*again):
		}
	}
}

// live is one connection, until it is lost or ctx is done.
func (p *plugin) live(ctx context.Context, socket, index, name string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	connection, err := dial(socket)
	if err != nil {
		return err
	}
	p.behaviour.connection = connection
	var handlers any = p
	if p.validate || p.reject != "" {
		handlers = &validator{p}
	}
	p.stub, err = stub.New(handlers,
		stub.WithConnection(connection),
		stub.WithPluginIdx(index),
		stub.WithPluginName(name),
		stub.WithOnClose(func() { p.say("closed", nil); cancel() }),
	)
	if err != nil {
		return err
	}
	if err := p.stub.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	p.stub.Stop()
	return nil
}

// plugin has a handler for each event; upstream's stub finds them by their names.
type plugin struct {
	stub        stub.Stub
	events      api.EventMask
	annotations []pair
	env         []pair
	memoryLimit int64
	validate    bool
	reject      string
	behaviour   behaviour

	lock  sync.Mutex
	trace io.Writer
}

// say prints one line about an event, for tests.
func (p *plugin) say(event string, more map[string]any) {
	if p.trace == io.Discard {
		return
	}
	line := map[string]any{"event": event}
	for key, value := range more {
		line[key] = value
	}
	p.lock.Lock()
	defer p.lock.Unlock()
	_ = json.NewEncoder(p.trace).Encode(line)
}

func (p *plugin) Configure(
	_ context.Context, config, runtime, version string,
) (api.EventMask, error) {
	p.say("Configure", map[string]any{
		"config": config, "runtime": runtime, "version": version,
		"nri_version": p.stub.RuntimeNRIVersion(),
	})
	return p.events, p.behaviour.meet("Configure")
}

func (p *plugin) Synchronize(
	_ context.Context, pods []*api.PodSandbox, containers []*api.Container,
) ([]*api.ContainerUpdate, error) {
	p.say("Synchronize", map[string]any{"pods": len(pods), "containers": len(containers)})
	return nil, p.behaviour.meet("Synchronize")
}

func (p *plugin) CreateContainer(
	ctx context.Context, _ *api.PodSandbox, container *api.Container,
) (*api.ContainerAdjustment, []*api.ContainerUpdate, error) {
	if err := p.notice("CreateContainer", container); err != nil {
		return nil, nil, err
	}
	p.stub.Logger().Infof(ctx, "adjusting container %s", container.GetName())
	adjustment := &api.ContainerAdjustment{}
	for _, annotation := range p.annotations {
		adjustment.AddAnnotation(annotation.key, annotation.value)
	}
	for _, variable := range p.env {
		adjustment.AddEnv(variable.key, variable.value)
	}
	if p.memoryLimit != 0 {
		adjustment.SetLinuxMemoryLimit(p.memoryLimit)
	}
	return adjustment, nil, nil
}

func (p *plugin) UpdateContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container, _ *api.LinuxResources,
) ([]*api.ContainerUpdate, error) {
	return nil, p.notice("UpdateContainer", container)
}

func (p *plugin) StopContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container,
) ([]*api.ContainerUpdate, error) {
	return nil, p.notice("StopContainer", container)
}

func (p *plugin) PostCreateContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container,
) error {
	return p.notice("PostCreateContainer", container)
}

func (p *plugin) StartContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container,
) error {
	return p.notice("StartContainer", container)
}

func (p *plugin) PostStartContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container,
) error {
	return p.notice("PostStartContainer", container)
}

func (p *plugin) PostUpdateContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container,
) error {
	return p.notice("PostUpdateContainer", container)
}

func (p *plugin) RemoveContainer(
	_ context.Context, _ *api.PodSandbox, container *api.Container,
) error {
	return p.notice("RemoveContainer", container)
}

func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.notice("RunPodSandbox", pod)
}

func (p *plugin) UpdatePodSandbox(
	_ context.Context, pod *api.PodSandbox, _, _ *api.LinuxResources,
) error {
	return p.notice("UpdatePodSandbox", pod)
}

func (p *plugin) PostUpdatePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.notice("PostUpdatePodSandbox", pod)
}

func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.notice("StopPodSandbox", pod)
}

func (p *plugin) RemovePodSandbox(_ context.Context, pod *api.PodSandbox) error {
	return p.notice("RemovePodSandbox", pod)
}

// notice is what each event has in common.
func (p *plugin) notice(event string, about interface{ GetId() string }) error {
	p.say(event, map[string]any{"id": about.GetId()})
	return p.behaviour.meet(event)
}

// validator adds the one handler that must be absent unless it is wanted: the stub would subscribe
// every plugin that has it, and a runtime works harder for each validator.
type validator struct{ *plugin }

func (v *validator) ValidateContainerAdjustment(
	_ context.Context, req *api.ValidateContainerAdjustmentRequest,
) error {
	plugins := []string{}
	for _, other := range req.GetPlugins() {
		plugins = append(plugins, other.GetIndex()+"-"+other.GetName())
	}
	v.say("ValidateContainerAdjustment", map[string]any{
		"id": req.GetContainer().GetId(), "plugins": plugins,
	})
	if err := v.behaviour.meet("ValidateContainerAdjustment"); err != nil {
		return err
	}
	for _, variable := range req.GetAdjust().GetEnv() {
		if v.reject != "" && variable.GetKey() == v.reject {
			owner, _ := req.GetOwners().EnvOwner(req.GetContainer().GetId(), v.reject)
			return fmt.Errorf("variable %s of %s is forbidden", v.reject, owner)
		}
	}
	return nil
}

// command is one line of stdin: a request that the plugin shall make on its own.
type command struct {
	Op          string `json:"op"`
	Container   string `json:"container"`
	MemoryLimit int64  `json:"memory_limit"`
}

func (p *plugin) obey(input io.Reader) {
	lines := bufio.NewScanner(input)
	for lines.Scan() {
		var c command
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			p.say("fault", map[string]any{"error": err.Error()})
			continue
		}
		switch c.Op {
		case "update":
			update := &api.ContainerUpdate{}
			update.SetContainerId(c.Container)
			update.SetLinuxMemoryLimit(c.MemoryLimit)
			failed, err := p.stub.UpdateContainers([]*api.ContainerUpdate{update})
			result := map[string]any{"failed": len(failed), "error": ""}
			if err != nil {
				result["error"] = err.Error()
			}
			p.say("updated", result)
		case "drop":
			p.behaviour.connection.Close()
		default:
			p.say("fault", map[string]any{"error": "unknown operation " + c.Op})
		}
	}
}

// pair is one key=value of the command line.
type pair struct{ key, value string }

type pairs struct{ list *[]pair }

func (p pairs) String() string { return "" }

func (p pairs) Set(text string) error {
	key, value, found := strings.Cut(text, "=")
	if !found || key == "" {
		return fmt.Errorf("%q is not key=value", text)
	}
	*p.list = append(*p.list, pair{key, value})
	return nil
}
