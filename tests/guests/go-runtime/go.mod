module edge-agent/tests/guests/go-runtime

go 1.24
