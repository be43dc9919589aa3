//go:build wasip1

// Command go-annotator is an NRI plugin in WebAssembly, written against upstream's own Go package:
// it gives each new container an annotation and an environment variable. Nothing in it is particular
// to edge-agent; README.md says how to build and to configure it.
package main

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/api"
)

// A reactor: the host calls the exports, main only has to exist.
func main() {}

func init() {
	api.RegisterPlugin(&annotator{settings: defaults(), host: api.NewHostFunctions()})
}

type annotator struct {
	unsubscribed
	settings settings
	host     api.HostFunctions
}

func (a *annotator) Configure(
	_ context.Context, req *api.ConfigureRequest,
) (*api.ConfigureResponse, error) {
	configured, err := parse(req.GetConfig())
	if err != nil {
		return nil, fmt.Errorf("go-annotator: %w", err)
	}
	a.settings = configured
	var events api.EventMask
	events.Set(api.Event_CREATE_CONTAINER)
	return &api.ConfigureResponse{Events: int32(events)}, nil
}

func (a *annotator) Synchronize(
	_ context.Context, req *api.SynchronizeRequest,
) (*api.SynchronizeResponse, error) {
	// A host that hands over the parts of a split synchronisation wants each part's mark back.
	return &api.SynchronizeResponse{More: req.GetMore()}, nil
}

func (a *annotator) CreateContainer(
	ctx context.Context, req *api.CreateContainerRequest,
) (*api.CreateContainerResponse, error) {
	_, err := a.host.Log(ctx, &api.LogRequest{
		Msg:   "adjusting container " + req.GetContainer().GetName(),
		Level: api.LogRequest_LEVEL_INFO,
	})
	if err != nil {
		return nil, err
	}
	adjustment := &api.ContainerAdjustment{}
	for _, annotation := range a.settings.annotations {
		adjustment.AddAnnotation(annotation.key, annotation.value)
	}
	for _, variable := range a.settings.env {
		adjustment.AddEnv(variable.key, variable.value)
	}
	return &api.CreateContainerResponse{Adjust: adjustment}, nil
}
