package main

import (
	"fmt"
	"strings"
)

// pair is one annotation or variable.
type pair struct{ key, value string }

// settings is what the plugin gives to each container.
type settings struct {
	annotations []pair
	env         []pair
}

func defaults() settings {
	return settings{
		annotations: []pair{{"edge.example/annotator", "go"}},
		env:         []pair{{"EDGE_AGENT", "go"}},
	}
}

// parse reads lines of the form "annotation KEY=VALUE" or "env KEY=VALUE"; empty lines and those
// that begin with # do not count. Without any such line the defaults hold.
func parse(config string) (settings, error) {
	var parsed settings
	for number, line := range strings.Split(config, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		kind, rest, _ := strings.Cut(line, " ")
		key, value, found := strings.Cut(strings.TrimSpace(rest), "=")
		if !found || key == "" {
			return settings{}, fmt.Errorf("line %d: expected %q, found %q", number+1, kind+" KEY=VALUE", line)
		}
		switch kind {
		case "annotation":
			parsed.annotations = append(parsed.annotations, pair{key, value})
		case "env":
			parsed.env = append(parsed.env, pair{key, value})
		default:
			return settings{}, fmt.Errorf("line %d: %q is neither annotation nor env", number+1, kind)
		}
	}
	if parsed.annotations == nil && parsed.env == nil {
		return defaults(), nil
	}
	return parsed, nil
}
