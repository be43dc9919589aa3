package main

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"
)

type benchParameters struct {
	N      int    `json:"n"`
	Warmup int    `json:"warmup"`
	Pause  int64  `json:"pause_us"` // before each request
	Base64 string `json:"base64"`
	File   string `json:"file"`
}

type benchResult struct {
	Latencies []int64  `json:"latencies_ns"`
	Errors    []string `json:"errors"`
	// Last is the reply to the last request: the proof that the plugin did its work.
	Last eventResult `json:"last"`
}

// bench sends one CreateContainerRequest n times and times the adaptation's call alone.
func (r *runtime) bench(p benchParameters) (any, error) {
	template, err := r.template(p.Base64, p.File)
	if err != nil {
		return nil, err
	}
	create := events["CreateContainer"]
	create.settle = nil
	result := benchResult{Latencies: make([]int64, 0, p.N), Errors: []string{}}
	for i := range p.Warmup + p.N {
		// A fresh copy each time: the adaptation writes what the plugins ask for into it.
		q := proto.Clone(template).(*api.CreateContainerRequest)
		time.Sleep(time.Duration(p.Pause) * time.Microsecond)
		block := r.block()
		last := r.fire(create, q)
		block.Unblock()
		if last.err != nil {
			result.Errors = append(result.Errors, last.err.Error())
		}
		if i >= p.Warmup {
			result.Latencies = append(result.Latencies, last.duration.Nanoseconds())
		}
		if i+1 == p.Warmup+p.N {
			result.Last = last.json()
		}
	}
	return result, nil
}

func (r *runtime) template(encoded, file string) (*api.CreateContainerRequest, error) {
	if err := r.started(); err != nil {
		return nil, err
	}
	raw, err := bytesOf(encoded, file)
	if err != nil {
		return nil, err
	}
	template := &api.CreateContainerRequest{}
	if raw == nil {
		template.Pod = &api.PodSandbox{Id: "burst-pod", Name: "burst-pod", Namespace: "default"}
		template.Container = &api.Container{Name: "burst"}
	} else if err := proto.Unmarshal(raw, template); err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	if template.Container == nil || template.Pod == nil {
		return nil, errors.New("the request has no pod or no container")
	}
	return template, nil
}

// burst creates containers in the background, one after the other without a pause.
type burst struct {
	quit chan struct{}
	done sync.WaitGroup
	once sync.Once
	made atomic.Int64

	results []made
}

// made is what became of one container of a burst.
type made struct {
	ID          string            `json:"id"`
	At          int64             `json:"at_ns"`
	Duration    int64             `json:"duration_ns"`
	Annotations map[string]string `json:"annotations"`
	Env         map[string]string `json:"env"`
	Calls       []call            `json:"calls"`
	// Errors has the error text for each event of this container's life that failed.
	Errors map[string]string `json:"errors"`
}

type burstParameters struct {
	Base64 string `json:"base64"`
	File   string `json:"file"`
	Prefix string `json:"prefix"`
	// Max ends the burst after so many containers; 0 goes on until told.
	Max int `json:"max"`
	// Pause is waited after each container, in microseconds.
	Pause int64 `json:"pause_us"`
	// Life names the events that follow CreateContainer for each container.
	Life []string `json:"life"`
}

func (r *runtime) burstStart(p burstParameters) (any, error) {
	if r.burst != nil {
		return nil, errors.New("a burst is running")
	}
	template, err := r.template(p.Base64, p.File)
	if err != nil {
		return nil, err
	}
	for _, name := range p.Life {
		if _, known := events[name]; !known {
			return nil, fmt.Errorf("unknown event %q", name)
		}
	}
	b := &burst{quit: make(chan struct{})}
	b.done.Add(1)
	r.burst = b
	go b.run(r, template, p)
	return nil, nil
}

func (b *burst) run(r *runtime, template *api.CreateContainerRequest, p burstParameters) {
	defer b.done.Done()
	began := time.Now()
	for i := 0; p.Max == 0 || i < p.Max; i++ {
		select {
		case <-b.quit:
			return
		default:
		}
		q := proto.Clone(template).(*api.CreateContainerRequest)
		q.Container.Id = p.Prefix + strconv.Itoa(i)
		one := b.live(r, q, p.Life)
		one.At = time.Since(began).Nanoseconds() - one.Duration
		b.results = append(b.results, one)
		b.made.Store(int64(len(b.results)))
		if p.Pause > 0 {
			time.Sleep(time.Duration(p.Pause) * time.Microsecond)
		}
	}
}

// live takes one container through its life. Synchronisation is blocked for each request to the
// runtime on its own: as with a real one, a plugin may join between a container's creation and its
// start.
func (b *burst) live(r *runtime, q *api.CreateContainerRequest, life []string) made {
	one := made{
		ID:          q.Container.Id,
		Annotations: map[string]string{},
		Env:         map[string]string{},
		Calls:       []call{},
		Errors:      map[string]string{},
	}
	pod, container := proto.Clone(q.Pod), proto.Clone(q.Container)
	create := events["CreateContainer"]
	if len(life) == 0 {
		// Nothing will remove it again.
		create.settle = nil
	}
	reply, created := one.take(r, "CreateContainer", create, q).(*api.CreateContainerResponse)
	if !created {
		return one
	}
	for key, value := range reply.GetAdjust().GetAnnotations() {
		one.Annotations[key] = value
	}
	for _, variable := range reply.GetAdjust().GetEnv() {
		one.Env[variable.GetKey()] = variable.GetValue()
	}
	for _, name := range life {
		event := events[name]
		next := event.fresh()
		put(next, "pod", proto.Clone(pod))
		put(next, "container", proto.Clone(container))
		one.take(r, name, event, next)
	}
	return one
}

func (m *made) take(r *runtime, name string, event event, q request) proto.Message {
	block := r.block()
	result := r.fire(event, q)
	block.Unblock()
	m.Duration += result.duration.Nanoseconds()
	m.Calls = append(m.Calls, result.calls...)
	if result.err != nil {
		m.Errors[name] = result.err.Error()
	}
	return result.reply
}

type burstStatus struct {
	Made int64 `json:"made"`
}

func (r *runtime) burstStatus(none) (any, error) {
	if r.burst == nil {
		return nil, errors.New("no burst is running")
	}
	return burstStatus{Made: r.burst.made.Load()}, nil
}

func (r *runtime) burstStop(none) (any, error) {
	if r.burst == nil {
		return nil, errors.New("no burst is running")
	}
	r.burst.end()
	results := append([]made{}, r.burst.results...)
	r.burst = nil
	return results, nil
}

func (b *burst) end() {
	b.once.Do(func() { close(b.quit) })
	b.done.Wait()
}
