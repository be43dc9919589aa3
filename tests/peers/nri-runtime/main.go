// Command nri-runtime is a container runtime without containers: upstream's own runtime side of
// the Node Resource Interface, fed with pretended pods and containers. Tests and the benchmark
// drive it with one JSON object for each line on stdin and read one line for each on stdout.
// README.md lists the operations.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// header is what every line has; the rest belongs to the operation.
type header struct {
	ID int64  `json:"id"`
	Op string `json:"op"`
}

// answer is one line of output. A fault means that the driver asked for something impossible; what
// the plugins made a request fail with is part of the result.
type answer struct {
	ID     int64  `json:"id"`
	Result any    `json:"result,omitempty"`
	Fault  string `json:"fault,omitempty"`
}

var errStop = errors.New("stop")

func main() {
	runtime := newRuntime(os.Stderr)
	if err := serve(runtime, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "nri-runtime:", err)
		os.Exit(1)
	}
}

func serve(runtime *runtime, input io.Reader, output io.Writer) error {
	lines := bufio.NewReaderSize(input, 1<<16)
	encoder := json.NewEncoder(output)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return runtime.stop()
		}
		if err != nil {
			return err
		}
		reply, done := answerLine(runtime, line)
		if err := encoder.Encode(reply); err != nil {
			return err
		}
		if done {
			return nil
		}
	}
}

func answerLine(runtime *runtime, line []byte) (answer, bool) {
	var head header
	if err := json.Unmarshal(line, &head); err != nil {
		return answer{Fault: fmt.Sprintf("not a JSON object: %v", err)}, false
	}
	operation, known := operations[head.Op]
	if !known {
		return answer{ID: head.ID, Fault: fmt.Sprintf("unknown operation %q", head.Op)}, false
	}
	result, err := operation(runtime, line)
	if err != nil && !errors.Is(err, errStop) {
		return answer{ID: head.ID, Fault: err.Error()}, false
	}
	return answer{ID: head.ID, Result: result}, errors.Is(err, errStop)
}

// operations maps the name of an operation to what it does with the whole line.
var operations = map[string]func(*runtime, []byte) (any, error){
	"start":        with((*runtime).start),
	"event":        with((*runtime).event),
	"fill":         with((*runtime).fill),
	"state":        with((*runtime).state),
	"plugins":      with((*runtime).plugins),
	"updates":      with((*runtime).updates),
	"bench":        with((*runtime).bench),
	"burst-start":  with((*runtime).burstStart),
	"burst-status": with((*runtime).burstStatus),
	"burst-stop":   with((*runtime).burstStop),
	"block-sync":   with((*runtime).blockSync),
	"reload":       with((*runtime).reload),
	"stop": func(runtime *runtime, _ []byte) (any, error) {
		if err := runtime.stop(); err != nil {
			return nil, err
		}
		return nil, errStop
	},
}

// with decodes an operation's own fields; a misspelt one is refused rather than ignored.
func with[P any](do func(*runtime, P) (any, error)) func(*runtime, []byte) (any, error) {
	return func(runtime *runtime, line []byte) (any, error) {
		fields := map[string]json.RawMessage{}
		if err := json.Unmarshal(line, &fields); err != nil {
			return nil, err
		}
		delete(fields, "id")
		delete(fields, "op")
		rest, err := json.Marshal(fields)
		if err != nil {
			return nil, err
		}
		var parameters P
		decoder := json.NewDecoder(bytes.NewReader(rest))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&parameters); err != nil {
			return nil, err
		}
		return do(runtime, parameters)
	}
}
