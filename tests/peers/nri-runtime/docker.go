package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/nri/pkg/api"
	"google.golang.org/protobuf/proto"
)

// dockerRefuses says why Docker Engine (29.2 to 29.7) would not create the container with this
// reply; "" if it would. What it drops without a word (pids, rdt, sysctl, ...) is no reason.
func dockerRefuses(message proto.Message) string {
	reply, ok := message.(*api.CreateContainerResponse)
	switch {
	case !ok || reply == nil:
		return ""
	case len(reply.Update) > 0:
		return "container update is not supported"
	case len(reply.Evict) > 0:
		return "container eviction is not supported"
	}
	if names := beyondDocker(reply.GetAdjust()); len(names) > 0 {
		return "unsupported container adjustments: " + strings.Join(names, ",")
	}
	for _, mount := range reply.GetAdjust().GetMounts() {
		for _, option := range mount.GetOptions() {
			if option != "ro" && option != "readonly" {
				return fmt.Sprintf("applying mount adjustments: mount option %q is not supported", option)
			}
		}
	}
	return ""
}

// beyondDocker names the groups of an adjustment that Docker Engine rejects.
func beyondDocker(adjust *api.ContainerAdjustment) []string {
	linux := adjust.GetLinux()
	resources := linux.GetResources()
	groups := map[string]bool{
		"annotations": len(adjust.GetAnnotations()) > 0,
		"hooks":       proto.Size(adjust.GetHooks()) > 0,
		"linux": len(linux.GetDevices()) > 0 || linux.GetCgroupsPath() != "" ||
			linux.GetOomScoreAdj() != nil || linux.GetIoPriority() != nil ||
			linux.GetSeccompPolicy() != nil || len(linux.GetNamespaces()) > 0,
		"linux.resources.memory": proto.Size(resources.GetMemory()) > 0,
		"linux.resources.cpu":    proto.Size(resources.GetCpu()) > 0,
		"rlimits":                len(adjust.GetRlimits()) > 0,
		"CDI":                    len(adjust.GetCDIDevices()) > 0,
		"args":                   len(adjust.GetArgs()) > 0,
	}
	var names []string
	for name, touched := range groups {
		if touched {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
