package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/adaptation/builtin"
	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"
)

// witnessName is the built-in validator that sees whose adjustment is whose.
const (
	witnessIndex = "00"
	witnessName  = "witness"
)

// call is one request of the runtime to one plugin.
type call struct {
	Plugin    string `json:"plugin"`
	Operation string `json:"operation"`
	Duration  int64  `json:"duration_ns"`
	Error     string `json:"error,omitempty"`
}

// observer sees through upstream's own hooks (metrics, log lines, a built-in validator) what the
// adaptation does not tell its caller: which plugins there are, who was called, who owns what.
type observer struct {
	lock   sync.Mutex
	log    io.Writer
	order  []registered
	gone   []string
	count  int
	calls  []call
	owners *api.OwningPlugins
}

type registered struct {
	Name      string `json:"name"`
	Qualified string `json:"qualified"`
}

type pluginsResult struct {
	// Order is the order of invocation at the last registration.
	Order []registered `json:"order"`
	// Closed names the sessions that closed since; the runtime drops them at its next request.
	Closed []string `json:"closed"`
	// Count is the number of plugins after the last registration or request.
	Count int `json:"count"`
}

func (o *observer) plugins() pluginsResult {
	o.lock.Lock()
	defer o.lock.Unlock()
	result := pluginsResult{Order: []registered{}, Closed: []string{}, Count: o.count}
	result.Order = append(result.Order, o.order...)
	result.Closed = append(result.Closed, o.gone...)
	if result.Order = slices.DeleteFunc(result.Order, isWitness); len(result.Order) < len(o.order) {
		result.Count--
	}
	return result
}

func isWitness(r registered) bool { return r.Name == witnessIndex+"-"+witnessName }

// take returns the calls and the owners since the last time.
func (o *observer) take() ([]call, *api.OwningPlugins) {
	o.lock.Lock()
	defer o.lock.Unlock()
	calls, owners := o.calls, o.owners
	o.calls, o.owners = nil, nil
	return calls, owners
}

// witness is a validator that accepts everything: validators are the only ones to be shown owners.
func (o *observer) witness() *builtin.BuiltinPlugin {
	return &builtin.BuiltinPlugin{
		Index: witnessIndex,
		Base:  witnessName,
		Handlers: builtin.BuiltinHandlers{
			ValidateContainerAdjustment: func(
				_ context.Context, req *api.ValidateContainerAdjustmentRequest,
			) error {
				o.lock.Lock()
				defer o.lock.Unlock()
				o.owners = proto.Clone(req.GetOwners()).(*api.OwningPlugins)
				return nil
			},
		},
	}
}

// RecordPluginLatency comes just before the call is recorded, from the same goroutine.
func (o *observer) RecordPluginLatency(plugin, operation string, latency time.Duration) {
	if isWitness(registered{Name: plugin}) {
		return
	}
	o.lock.Lock()
	defer o.lock.Unlock()
	o.calls = append(o.calls, call{Plugin: plugin, Operation: operation, Duration: latency.Nanoseconds()})
}

func (o *observer) RecordPluginInvocation(plugin, operation string, err error) {
	if err == nil {
		return
	}
	o.lock.Lock()
	defer o.lock.Unlock()
	for i := range slices.Backward(o.calls) {
		if o.calls[i].Plugin == plugin && o.calls[i].Operation == operation {
			o.calls[i].Error = err.Error()
			return
		}
	}
}

func (o *observer) RecordPluginAdjustments(
	string, string, *adaptation.ContainerAdjustment, int, int,
) {
}

func (o *observer) UpdatePluginCount(count int) {
	o.lock.Lock()
	defer o.lock.Unlock()
	o.count = count
}

// Debugf is one of the four of upstream's logger; together they go to stderr.
func (o *observer) Debugf(_ context.Context, format string, args ...any) {
	o.write("debug", format, args)
}

// Infof also learns the order of invocation, which upstream tells nowhere else.
func (o *observer) Infof(_ context.Context, format string, args ...any) {
	o.learn(format, args)
	o.write("info", format, args)
}

// Warnf logs a warning.
func (o *observer) Warnf(_ context.Context, format string, args ...any) {
	o.write("warning", format, args)
}

// Errorf logs an error.
func (o *observer) Errorf(_ context.Context, format string, args ...any) {
	o.write("error", format, args)
}

func (o *observer) learn(format string, args []any) {
	o.lock.Lock()
	defer o.lock.Unlock()
	switch format {
	case "plugin invocation order":
		o.order = nil
		o.gone = nil
	case "  #%d: %q (%s)":
		o.order = append(o.order, registered{
			Name:      fmt.Sprint(args[1]),
			Qualified: fmt.Sprint(args[2]),
		})
	case "connection to plugin %q closed":
		o.gone = append(o.gone, fmt.Sprint(args[0]))
	}
}

func (o *observer) write(level, format string, args []any) {
	line := fmt.Sprintf(format, args...)
	o.lock.Lock()
	defer o.lock.Unlock()
	fmt.Fprintf(o.log, "%s %s: %s\n", time.Now().Format("15:04:05.000000"), level, line)
}
