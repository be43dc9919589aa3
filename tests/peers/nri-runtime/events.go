package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// request is what all requests to a plugin have in common.
type request interface {
	proto.Message
	GetPod() *api.PodSandbox
}

// event is one row of the table of everything that a runtime asks its plugins.
type event struct {
	fresh func() request
	fire  func(context.Context, *adaptation.Adaptation, request) (proto.Message, error)
	// settle changes the pretended runtime's state after the request went through.
	settle func(*runtime, request)
}

// answered is an event whose plugins send something back.
func answered[Q request, A proto.Message](
	fresh func() Q,
	call func(*adaptation.Adaptation, context.Context, Q) (A, error),
	settle func(*runtime, request),
) event {
	return event{
		fresh: func() request { return fresh() },
		fire: func(ctx context.Context, nri *adaptation.Adaptation, q request) (proto.Message, error) {
			reply, err := call(nri, ctx, q.(Q))
			if err != nil {
				return nil, err
			}
			return reply, nil
		},
		settle: settle,
	}
}

// noticed is an event whose plugins only learn of it.
func noticed[Q request](
	fresh func() Q,
	call func(*adaptation.Adaptation, context.Context, Q) error,
	settle func(*runtime, request),
) event {
	return event{
		fresh: func() request { return fresh() },
		fire: func(ctx context.Context, nri *adaptation.Adaptation, q request) (proto.Message, error) {
			return nil, call(nri, ctx, q.(Q))
		},
		settle: settle,
	}
}

func fresh[T any]() *T { return new(T) }

var events = map[string]event{
	"RunPodSandbox": noticed(fresh[api.RunPodSandboxRequest],
		(*adaptation.Adaptation).RunPodSandbox, keepPod),
	"UpdatePodSandbox": answered(fresh[api.UpdatePodSandboxRequest],
		(*adaptation.Adaptation).UpdatePodSandbox, nil),
	"PostUpdatePodSandbox": noticed(fresh[api.PostUpdatePodSandboxRequest],
		(*adaptation.Adaptation).PostUpdatePodSandbox, nil),
	"StopPodSandbox": noticed(fresh[api.StopPodSandboxRequest],
		(*adaptation.Adaptation).StopPodSandbox, nil),
	"RemovePodSandbox": noticed(fresh[api.RemovePodSandboxRequest],
		(*adaptation.Adaptation).RemovePodSandbox, dropPod),
	"CreateContainer": answered(fresh[api.CreateContainerRequest],
		(*adaptation.Adaptation).CreateContainer, container(api.ContainerState_CONTAINER_CREATED)),
	"PostCreateContainer": noticed(fresh[api.PostCreateContainerRequest],
		(*adaptation.Adaptation).PostCreateContainer, nil),
	"StartContainer": noticed(fresh[api.StartContainerRequest],
		(*adaptation.Adaptation).StartContainer, container(api.ContainerState_CONTAINER_RUNNING)),
	"PostStartContainer": noticed(fresh[api.PostStartContainerRequest],
		(*adaptation.Adaptation).PostStartContainer, nil),
	"UpdateContainer": answered(fresh[api.UpdateContainerRequest],
		(*adaptation.Adaptation).UpdateContainer, nil),
	"PostUpdateContainer": noticed(fresh[api.PostUpdateContainerRequest],
		(*adaptation.Adaptation).PostUpdateContainer, nil),
	"StopContainer": answered(fresh[api.StopContainerRequest],
		(*adaptation.Adaptation).StopContainer, container(api.ContainerState_CONTAINER_STOPPED)),
	"RemoveContainer": noticed(fresh[api.RemoveContainerRequest],
		(*adaptation.Adaptation).RemoveContainer, dropContainer),
}

func keepPod(r *runtime, q request) {
	if q.GetPod() != nil {
		r.pods.put(q.GetPod())
	}
}

func dropPod(r *runtime, q request) { delete(r.pods, q.GetPod().GetId()) }

// about is a request that concerns a container.
type about interface{ GetContainer() *api.Container }

func container(state api.ContainerState) func(*runtime, request) {
	return func(r *runtime, q request) {
		if c := q.(about).GetContainer(); c != nil {
			c.State = state
			r.containers.put(c)
		}
	}
}

func dropContainer(r *runtime, q request) {
	delete(r.containers, q.(about).GetContainer().GetId())
}

type eventParameters struct {
	Event string `json:"event"`
	// Pod and Container are objects in protobuf's JSON, or the id of one that the runtime has.
	Pod       json.RawMessage `json:"pod"`
	Container json.RawMessage `json:"container"`
	// Request is the whole request, or its other fields, in protobuf's JSON.
	Request json.RawMessage `json:"request"`
	// Base64 and File give the whole request as bytes.
	Base64 string `json:"base64"`
	File   string `json:"file"`
}

type eventResult struct {
	// Error is why the runtime has to refuse what it was asked for; "" if it need not.
	Error    string          `json:"error"`
	Reply    json.RawMessage `json:"reply,omitempty"`
	Owners   json.RawMessage `json:"owners,omitempty"`
	Calls    []call          `json:"calls"`
	Duration int64           `json:"duration_ns"`
}

func (r *runtime) event(p eventParameters) (any, error) {
	if err := r.started(); err != nil {
		return nil, err
	}
	event, known := events[p.Event]
	if !known {
		return nil, fmt.Errorf("unknown event %q", p.Event)
	}
	q, err := r.build(event, p)
	if err != nil {
		return nil, err
	}
	defer r.block().Unblock()
	return r.fire(event, q).json(), nil
}

// outcome is what came of one request to the plugins.
type outcome struct {
	reply    proto.Message
	err      error
	owners   *api.OwningPlugins
	calls    []call
	duration time.Duration
}

// fire relays one request to the plugins. The caller blocks plugin synchronisation meanwhile.
func (r *runtime) fire(event event, q request) outcome {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.observer.take()
	began := time.Now()
	reply, err := event.fire(context.Background(), r.nri, q)
	result := outcome{reply: reply, err: err, duration: time.Since(began)}
	if err == nil && r.docker {
		if reason := dockerRefuses(reply); reason != "" {
			result.err = errors.New(reason)
		}
	}
	result.calls, result.owners = r.observer.take()
	if result.err == nil && event.settle != nil {
		event.settle(r, q)
	}
	return result
}

func (o outcome) json() eventResult {
	result := eventResult{Calls: append([]call{}, o.calls...), Duration: o.duration.Nanoseconds()}
	if o.owners != nil {
		result.Owners = jsonOf(o.owners)
	}
	if o.err != nil {
		result.Error = o.err.Error()
	} else if o.reply != nil {
		result.Reply = jsonOf(o.reply)
	}
	return result
}

func (r *runtime) build(event event, p eventParameters) (request, error) {
	q := event.fresh()
	raw, err := bytesOf(p.Base64, p.File)
	if err != nil {
		return nil, err
	}
	if raw != nil {
		if err := proto.Unmarshal(raw, q); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
	}
	if p.Request != nil {
		if err := protojson.Unmarshal(p.Request, q); err != nil {
			return nil, fmt.Errorf("request: %w", err)
		}
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if p.Pod != nil {
		pod, err := r.pods.find(p.Pod, &api.PodSandbox{})
		if err != nil {
			return nil, fmt.Errorf("pod: %w", err)
		}
		put(q, "pod", pod)
	}
	if p.Container != nil {
		container, err := r.containers.find(p.Container, &api.Container{})
		if err != nil {
			return nil, fmt.Errorf("container: %w", err)
		}
		put(q, "container", container)
	}
	return q, nil
}

func put(q request, field string, value proto.Message) {
	message := q.ProtoReflect()
	if descriptor := message.Descriptor().Fields().ByTextName(field); descriptor != nil {
		message.Set(descriptor, protoreflect.ValueOfMessage(value.ProtoReflect()))
	}
}

// find returns a copy of the object with this id, or the object that the JSON describes.
func (t table[O]) find(text json.RawMessage, into O) (O, error) {
	var id string
	if json.Unmarshal(text, &id) == nil {
		known, found := t[id]
		if !found {
			return into, fmt.Errorf("no such id: %q", id)
		}
		return proto.Clone(known).(O), nil
	}
	return into, protojson.Unmarshal(text, into)
}

func bytesOf(encoded, file string) ([]byte, error) {
	switch {
	case encoded != "" && file != "":
		return nil, errors.New("either base64 or file, not both")
	case encoded != "":
		return base64.StdEncoding.DecodeString(encoded)
	case file != "":
		return os.ReadFile(file)
	}
	return nil, nil
}
