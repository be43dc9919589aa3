//go:build wasip1

// Command PLUGIN_NAME marks each container with the label "app" of its pod: an annotation and a
// variable.
package main

import (
	"context"
	"fmt"

	"github.com/containerd/nri/pkg/api"
)

// The host calls the exports; main only has to exist.
func main() {}

func init() {
	api.RegisterPlugin(&plugin{host: api.NewHostFunctions()})
}

type plugin struct {
	unsubscribed
	host api.HostFunctions
}

func (p *plugin) Configure(
	_ context.Context, req *api.ConfigureRequest,
) (*api.ConfigureResponse, error) {
	if req.GetConfig() != "" {
		return nil, fmt.Errorf("this plugin has no settings, not even %.40s", req.GetConfig())
	}
	var events api.EventMask
	events.Set(api.Event_CREATE_CONTAINER)
	return &api.ConfigureResponse{Events: int32(events)}, nil
}

func (p *plugin) Synchronize(
	_ context.Context, req *api.SynchronizeRequest,
) (*api.SynchronizeResponse, error) {
	return &api.SynchronizeResponse{More: req.GetMore()}, nil
}

func (p *plugin) CreateContainer(
	ctx context.Context, req *api.CreateContainerRequest,
) (*api.CreateContainerResponse, error) {
	app, found := req.GetPod().GetLabels()["app"]
	if !found {
		return &api.CreateContainerResponse{}, nil
	}
	adjust := &api.ContainerAdjustment{}
	adjust.AddAnnotation("PLUGIN_NAME.example/app", app)
	adjust.AddEnv("APP", app)
	_, err := p.host.Log(ctx, &api.LogRequest{
		Msg:   "marked " + req.GetContainer().GetName() + " of " + app,
		Level: api.LogRequest_LEVEL_INFO,
	})
	return &api.CreateContainerResponse{Adjust: adjust}, err
}
