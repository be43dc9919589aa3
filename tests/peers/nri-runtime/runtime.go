package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	nrilog "github.com/containerd/nri/pkg/log"
	"github.com/containerd/nri/pkg/version"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// runtime is the pretended container runtime around upstream's adaptation.
type runtime struct {
	// lock is held for each event, each synchronisation and each unsolicited update: containerd's
	// NRI domain has such a lock too, and what a plugin may do inside an event depends on it.
	lock       sync.Mutex
	nri        *adaptation.Adaptation
	observer   *observer
	pods       table[*api.PodSandbox]
	containers table[*api.Container]
	synced     []*api.ContainerUpdate
	unasked    []unsolicited
	refuse     string
	held       *adaptation.PluginSyncBlock
	careless   bool
	docker     bool
	linger     time.Duration
	burst      *burst
	again      func() (*adaptation.Adaptation, error)
}

// unsolicited is one UpdateContainers request that a plugin made on its own.
type unsolicited struct {
	Updates []json.RawMessage `json:"updates"`
	Refused string            `json:"refused,omitempty"`
}

func newRuntime(log io.Writer) *runtime {
	observer := &observer{log: log}
	nrilog.Set(observer)
	return &runtime{
		observer:   observer,
		pods:       table[*api.PodSandbox]{},
		containers: table[*api.Container]{},
	}
}

type startParameters struct {
	Socket              string `json:"socket"`
	PluginDir           string `json:"plugin_dir"`
	ConfigDir           string `json:"config_dir"`
	Name                string `json:"name"`
	Version             string `json:"version"`
	RegistrationTimeout int64  `json:"registration_timeout_ms"`
	RequestTimeout      int64  `json:"request_timeout_ms"`
	Owners              bool   `json:"owners"`
	// Careless lets plugins join in the middle of a request, as CRI-O and Docker Engine do.
	Careless bool `json:"careless"`
	// Linger stretches the moment between a plugin's synchronisation and its registration.
	Linger int64 `json:"linger_ms"`
	// Burst begins as soon as plugins may connect: the containers that a restarted runtime is asked
	// for before anybody has come back.
	Burst *burstParameters `json:"burst"`
	// Docker fails the creations that Docker Engine fails for what it cannot adjust.
	Docker bool `json:"docker"`
}

type startResult struct {
	NRIVersion string `json:"nri_version"`
	Duration   int64  `json:"duration_ns"`
}

func (r *runtime) start(p startParameters) (any, error) {
	if r.nri != nil {
		return nil, errors.New("already started")
	}
	if p.RegistrationTimeout > 0 {
		adaptation.SetPluginRegistrationTimeout(time.Duration(p.RegistrationTimeout) * time.Millisecond)
	}
	if p.RequestTimeout > 0 {
		adaptation.SetPluginRequestTimeout(time.Duration(p.RequestTimeout) * time.Millisecond)
	}
	options := []adaptation.Option{
		// Empty is a folder that does not exist: the defaults name the machine's own plugins.
		adaptation.WithPluginPath(p.PluginDir),
		adaptation.WithPluginConfigPath(p.ConfigDir),
		adaptation.WithMetrics(r.observer),
	}
	if p.Socket == "" {
		options = append(options, adaptation.WithDisabledExternalConnections())
	} else {
		options = append(options, adaptation.WithSocketPath(p.Socket))
	}
	if p.Owners {
		options = append(options, adaptation.WithBuiltinPlugins(r.observer.witness()))
	}
	r.careless = p.Careless
	r.docker = p.Docker
	r.linger = time.Duration(p.Linger) * time.Millisecond
	r.again = func() (*adaptation.Adaptation, error) {
		return adaptation.New(p.Name, p.Version, r.synchronize, r.updateUnsolicited, options...)
	}
	began := time.Now()
	nri, err := r.again()
	if err != nil {
		return nil, err
	}
	if err := nri.Start(); err != nil {
		return nil, err
	}
	r.nri = nri
	took := time.Since(began).Nanoseconds()
	if p.Burst != nil {
		if _, err := r.burstStart(*p.Burst); err != nil {
			return nil, err
		}
	}
	return startResult{NRIVersion: version.GetFromBuildInfo(), Duration: took}, nil
}

// reload does what Docker Engine does at SIGHUP (daemon/internal/nri, PrepareReload): stop the
// adaptation, which closes its listener and none of its plugins' connections, and start another.
func (r *runtime) reload(none) (any, error) {
	if err := r.started(); err != nil {
		return nil, err
	}
	next, err := r.again()
	if err != nil {
		return nil, err
	}
	r.lock.Lock()
	r.nri.Stop()
	r.nri = next
	r.lock.Unlock() // starting calls back to synchronize
	return nil, next.Start()
}

func (r *runtime) stop() error {
	if r.burst != nil {
		r.burst.end()
	}
	if r.held != nil {
		r.held.Unblock()
	}
	if r.nri != nil {
		r.nri.Stop()
	}
	return nil
}

func (r *runtime) started() error {
	if r.nri == nil {
		return errors.New("not started")
	}
	return nil
}

// block keeps plugins from joining during a request. A nil block is fine to unblock.
func (r *runtime) block() *adaptation.PluginSyncBlock {
	if r.careless {
		return nil
	}
	r.lock.Lock()
	nri := r.nri
	r.lock.Unlock()
	return nri.BlockPluginSync()
}

// synchronize hands the present pods and containers to a plugin that has just been configured.
func (r *runtime) synchronize(ctx context.Context, send adaptation.SyncCB) error {
	// Deferred first, so without the lock: here a real runtime may serve other requests, too.
	defer time.Sleep(r.linger)
	r.lock.Lock()
	defer r.lock.Unlock()
	updates, err := send(ctx, r.pods.all(), r.containers.all())
	if err != nil {
		return err
	}
	r.synced = append(r.synced, updates...)
	return nil
}

func (r *runtime) updateUnsolicited(
	_ context.Context, updates []*api.ContainerUpdate,
) ([]*api.ContainerUpdate, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	r.unasked = append(r.unasked, unsolicited{Updates: jsonList(updates), Refused: r.refuse})
	if r.refuse != "" {
		return updates, errors.New(r.refuse)
	}
	return nil, nil
}

type updatesParameters struct {
	// Refuse makes every later unsolicited update fail with this text; "" accepts them again.
	Refuse *string `json:"refuse"`
}

type updatesResult struct {
	Unsolicited []unsolicited     `json:"unsolicited"`
	Synchronize []json.RawMessage `json:"synchronize"`
}

func (r *runtime) updates(p updatesParameters) (any, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	if p.Refuse != nil {
		r.refuse = *p.Refuse
	}
	return updatesResult{
		Unsolicited: append([]unsolicited{}, r.unasked...),
		Synchronize: jsonList(r.synced),
	}, nil
}

type fillParameters struct {
	Pods       int    `json:"pods"`
	Containers int    `json:"containers"`
	Padding    int    `json:"padding"`
	Prefix     string `json:"prefix"`
}

// fill adds running containers with an annotation of the given size, spread over the pods. A
// Synchronize request beyond ttRPC's 4 MiB is split, in parts of eight objects or more.
func (r *runtime) fill(p fillParameters) (any, error) {
	if p.Pods < 1 {
		return nil, errors.New("pods must be at least 1")
	}
	padding := make([]byte, p.Padding)
	for i := range padding {
		padding[i] = 'x'
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	for i := range p.Pods {
		id := fmt.Sprintf("%spod%d", p.Prefix, i)
		r.pods.put(&api.PodSandbox{Id: id, Name: id, Uid: id, Namespace: "default"})
	}
	for i := range p.Containers {
		id := fmt.Sprintf("%sctr%d", p.Prefix, i)
		r.containers.put(&api.Container{
			Id:           id,
			PodSandboxId: fmt.Sprintf("%spod%d", p.Prefix, i%p.Pods),
			Name:         id,
			State:        api.ContainerState_CONTAINER_RUNNING,
			Annotations:  map[string]string{"padding": string(padding)},
		})
	}
	return map[string]int{"pods": len(r.pods), "containers": len(r.containers)}, nil
}

type none struct{}

type stateResult struct {
	Pods       map[string]json.RawMessage `json:"pods"`
	Containers map[string]json.RawMessage `json:"containers"`
}

func (r *runtime) state(none) (any, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	return stateResult{Pods: r.pods.json(), Containers: r.containers.json()}, nil
}

func (r *runtime) plugins(none) (any, error) {
	return r.observer.plugins(), nil
}

type blockSyncParameters struct {
	Block bool `json:"block"`
}

// blockSync holds plugins back before their synchronisation, as a long container creation does.
func (r *runtime) blockSync(p blockSyncParameters) (any, error) {
	if err := r.started(); err != nil {
		return nil, err
	}
	switch {
	case p.Block && r.held == nil:
		r.held = r.nri.BlockPluginSync()
	case !p.Block && r.held != nil:
		r.held.Unblock()
		r.held = nil
	}
	return nil, nil
}

// object is a pod or a container.
type object interface {
	proto.Message
	GetId() string
}

// table keeps pods or containers by their id.
type table[O object] map[string]O

func (t table[O]) put(o O) { t[o.GetId()] = o }

// all returns copies: the adaptation changes the messages that it is given.
func (t table[O]) all() []O {
	list := make([]O, 0, len(t))
	for _, o := range t {
		list = append(list, proto.Clone(o).(O))
	}
	return list
}

func (t table[O]) json() map[string]json.RawMessage {
	all := make(map[string]json.RawMessage, len(t))
	for id, o := range t {
		all[id] = jsonOf(o)
	}
	return all
}

func jsonOf(message proto.Message) json.RawMessage {
	text, err := protojson.Marshal(message)
	if err != nil {
		// Strings that are not UTF-8 are the one cause; the test that sent them wants to see it.
		text, _ = json.Marshal(map[string]string{"unprintable": err.Error()})
	}
	return text
}

func jsonList[M proto.Message](messages []M) []json.RawMessage {
	list := make([]json.RawMessage, 0, len(messages))
	for _, message := range messages {
		list = append(list, jsonOf(message))
	}
	return list
}
