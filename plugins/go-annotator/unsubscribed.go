//go:build wasip1

package main

import (
	"context"

	"github.com/containerd/nri/pkg/api"
)

// unsubscribed answers the requests that the plugin does not ask for. Upstream's interface wants
// all of them, and a runtime's own Wasm host refuses a module that lacks one.
type unsubscribed struct{}

func (unsubscribed) RunPodSandbox(
	context.Context, *api.RunPodSandboxRequest,
) (*api.RunPodSandboxResponse, error) {
	return &api.RunPodSandboxResponse{}, nil
}

func (unsubscribed) UpdatePodSandbox(
	context.Context, *api.UpdatePodSandboxRequest,
) (*api.UpdatePodSandboxResponse, error) {
	return &api.UpdatePodSandboxResponse{}, nil
}

func (unsubscribed) PostUpdatePodSandbox(
	context.Context, *api.PostUpdatePodSandboxRequest,
) (*api.PostUpdatePodSandboxResponse, error) {
	return &api.PostUpdatePodSandboxResponse{}, nil
}

func (unsubscribed) StopPodSandbox(
	context.Context, *api.StopPodSandboxRequest,
) (*api.StopPodSandboxResponse, error) {
	return &api.StopPodSandboxResponse{}, nil
}

func (unsubscribed) RemovePodSandbox(
	context.Context, *api.RemovePodSandboxRequest,
) (*api.RemovePodSandboxResponse, error) {
	return &api.RemovePodSandboxResponse{}, nil
}

func (unsubscribed) PostCreateContainer(
	context.Context, *api.PostCreateContainerRequest,
) (*api.PostCreateContainerResponse, error) {
	return &api.PostCreateContainerResponse{}, nil
}

func (unsubscribed) StartContainer(
	context.Context, *api.StartContainerRequest,
) (*api.StartContainerResponse, error) {
	return &api.StartContainerResponse{}, nil
}

func (unsubscribed) PostStartContainer(
	context.Context, *api.PostStartContainerRequest,
) (*api.PostStartContainerResponse, error) {
	return &api.PostStartContainerResponse{}, nil
}

func (unsubscribed) UpdateContainer(
	context.Context, *api.UpdateContainerRequest,
) (*api.UpdateContainerResponse, error) {
	return &api.UpdateContainerResponse{}, nil
}

func (unsubscribed) PostUpdateContainer(
	context.Context, *api.PostUpdateContainerRequest,
) (*api.PostUpdateContainerResponse, error) {
	return &api.PostUpdateContainerResponse{}, nil
}

func (unsubscribed) StopContainer(
	context.Context, *api.StopContainerRequest,
) (*api.StopContainerResponse, error) {
	return &api.StopContainerResponse{}, nil
}

func (unsubscribed) RemoveContainer(
	context.Context, *api.RemoveContainerRequest,
) (*api.RemoveContainerResponse, error) {
	return &api.RemoveContainerResponse{}, nil
}

func (unsubscribed) ValidateContainerAdjustment(
	context.Context, *api.ValidateContainerAdjustmentRequest,
) (*api.ValidateContainerAdjustmentResponse, error) {
	return &api.ValidateContainerAdjustmentResponse{}, nil
}

func (unsubscribed) StateChange(context.Context, *api.StateChangeEvent) (*api.Empty, error) {
	return &api.Empty{}, nil
}

func (unsubscribed) Shutdown(context.Context, *api.Empty) (*api.Empty, error) {
	return &api.Empty{}, nil
}
