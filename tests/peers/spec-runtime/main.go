// Command spec-runtime makes containers on paper as containerd does it (pkg/cri/nri of 1.7,
// internal/cri/nri of 2.x): the plugins' adjustment goes through upstream's own generator into an
// OCI specification, and later events show what stands there. go.mod takes NRI 0.6.1, which Debian
// 13's containerd is built with; newer.mod takes 0.8.0. See README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrigen "github.com/containerd/nri/pkg/runtime-tools/generate"
	rspec "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/opencontainers/runtime-tools/generate"
)

// request is one line of input.
type request struct {
	ID      int64  `json:"id"`
	Op      string `json:"op"` // start, create or stop
	Socket  string `json:"socket"`
	Name    string `json:"name"`
	Version string `json:"version"`
	// Container is the id and the name of the container that is created; Spec what it is before.
	Container string     `json:"container"`
	Spec      rspec.Spec `json:"spec"`
}

type answer struct {
	ID     int64  `json:"id"`
	Result any    `json:"result,omitempty"`
	Fault  string `json:"fault,omitempty"`
}

// created is what came of a creation: why it failed, or the specification with all adjustments.
type created struct {
	Error string      `json:"error"`
	Spec  *rspec.Spec `json:"spec,omitempty"`
}

type runtime struct {
	nri *adaptation.Adaptation
	// Container.name is no part of a specification.
	pod *api.PodSandbox
}

func main() {
	runtime := &runtime{pod: &api.PodSandbox{Id: "pod0", Name: "pod0", Uid: "pod0", Namespace: "default"}}
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 1<<24)
	encoder := json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked request
		reply := answer{}
		if err := json.Unmarshal(lines.Bytes(), &asked); err != nil {
			reply.Fault = err.Error()
		} else if result, err := runtime.do(asked); err != nil {
			reply.Fault = err.Error()
		} else {
			reply.Result = result
		}
		reply.ID = asked.ID
		if err := encoder.Encode(reply); err != nil {
			os.Exit(1)
		}
	}
}

func (r *runtime) do(asked request) (any, error) {
	switch asked.Op {
	case "start":
		return nil, r.start(asked)
	case "create":
		return r.create(asked.Container, &asked.Spec), nil
	}
	return nil, fmt.Errorf("unknown operation %q", asked.Op)
}

func (r *runtime) start(asked request) error {
	synchronize := func(ctx context.Context, send adaptation.SyncCB) error {
		_, err := send(ctx, nil, nil)
		return err
	}
	update := func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) {
		return nil, nil
	}
	nri, err := adaptation.New(asked.Name, asked.Version, synchronize, update,
		// Empty is a folder that does not exist: the defaults name the machine's own plugins.
		adaptation.WithPluginPath(""),
		adaptation.WithPluginConfigPath(""),
		adaptation.WithSocketPath(asked.Socket),
	)
	if err != nil {
		return err
	}
	r.nri = nri
	return nri.Start()
}

// create asks the plugins, applies what they want and tells them of the container as it is then.
func (r *runtime) create(id string, spec *rspec.Spec) created {
	ctx := context.Background()
	ask := &api.CreateContainerRequest{Pod: r.pod, Container: containerOf(id, spec)}
	reply, err := r.nri.CreateContainer(ctx, ask)
	if err != nil {
		return created{Error: err.Error()}
	}
	generator := nrigen.SpecGenerator(&generate.Generator{Config: spec})
	if err := generator.Adjust(reply.Adjust); err != nil {
		return created{Error: err.Error()}
	}
	told := &api.StateChangeEvent{Pod: r.pod, Container: containerOf(id, spec)}
	if err := r.nri.PostCreateContainer(ctx, told); err != nil {
		return created{Error: err.Error()}
	}
	return created{Spec: spec}
}

// containerOf is containerd's commonContainerToNRI and containerToNRI.
func containerOf(id string, spec *rspec.Spec) *api.Container {
	container := &api.Container{
		Id:           id,
		PodSandboxId: "pod0",
		Name:         id,
		State:        api.ContainerState_CONTAINER_CREATED,
		Annotations:  map[string]string{},
		Mounts:       api.FromOCIMounts(spec.Mounts),
		Hooks:        api.FromOCIHooks(spec.Hooks),
		Linux:        &api.LinuxContainer{},
	}
	for key, value := range spec.Annotations {
		container.Annotations[key] = value
	}
	if spec.Process != nil {
		container.Args = api.DupStringSlice(spec.Process.Args)
		container.Env = api.DupStringSlice(spec.Process.Env)
		container.Linux.OomScoreAdj = api.Int(spec.Process.OOMScoreAdj)
	}
	if spec.Linux != nil {
		container.Linux.Namespaces = api.FromOCILinuxNamespaces(spec.Linux.Namespaces)
		container.Linux.Devices = api.FromOCILinuxDevices(spec.Linux.Devices)
		container.Linux.Resources = api.FromOCILinuxResources(spec.Linux.Resources, spec.Annotations)
		container.Linux.CgroupsPath = spec.Linux.CgroupsPath
	}
	return container
}
