package main

import (
	"reflect"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for config, want := range map[string]settings{
		"":                      defaults(),
		"# nothing\n\n":         defaults(),
		"env A=b=c\n":           {env: []pair{{"A", "b=c"}}},
		"  annotation x/y= \n":  {annotations: []pair{{"x/y", ""}}},
		"env A=\r\nenv B=2\r\n": {env: []pair{{"A", ""}, {"B", "2"}}},
	} {
		parsed, err := parse(config)
		if err != nil || !reflect.DeepEqual(parsed, want) {
			t.Errorf("parse(%q) = %v, %v; want %v", config, parsed, err, want)
		}
	}
}

func TestParseNamesTheWrongLine(t *testing.T) {
	for _, config := range []string{"\nlabel a=b", "\nenv", "\nenv =x", "\nannotation a"} {
		if _, err := parse(config); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("parse(%q) gives %v", config, err)
		}
	}
}
