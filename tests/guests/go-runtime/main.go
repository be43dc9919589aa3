//go:build wasip1

// Command go-runtime is a guest that uses what Go's runtime asks of WASI: Configure's text names
// what to do, and what came of it is printed. It speaks the guest ABI by itself, so that it needs
// no module but Go's own.
package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"time"
	"unsafe"
)

func main() {}

var started = time.Now()

// What the host may write to; held so that the collector leaves it.
var held = map[uint32][]byte{}

//go:wasmexport malloc
func malloc(size uint32) uint32 {
	block := make([]byte, max(size, 1))
	pointer := uint32(uintptr(unsafe.Pointer(&block[0])))
	held[pointer] = block
	return pointer
}

//go:wasmexport free
func free(pointer uint32) { delete(held, pointer) }

//go:wasmexport plugin_api_version
func apiVersion() uint64 { return 1 }

// ConfigureRequest{config: 1}, shorter than 128 bytes, as the first field.
//
//go:wasmexport plugin_configure
func configure(pointer, size uint32) uint64 {
	request := held[pointer][:size]
	do(string(request[2 : 2+int(request[1])]))
	return 0
}

//go:wasmexport plugin_shutdown
func shutdown(_, _ uint32) uint64 {
	fmt.Println("shutdown")
	return 0
}

func do(what string) {
	switch what {
	case "sleep":
		before := time.Now()
		time.Sleep(5 * time.Millisecond)
		fmt.Println("slept", time.Since(before) >= 5*time.Millisecond)
	case "sleep long":
		time.Sleep(time.Hour)
	case "random":
		first, second := make([]byte, 64), make([]byte, 64)
		_, err := io.ReadFull(rand.Reader, first)
		rand.Read(second)
		fmt.Println("random", err == nil && !bytes.Equal(first, second))
	case "prime":
		prime, err := rand.Prime(rand.Reader, 128)
		fmt.Println("prime", err == nil && prime.ProbablyPrime(20) && prime.Cmp(big.NewInt(2)) > 0)
	case "panic":
		panic("on request")
	case "nil":
		var nothing *strings.Builder
		nothing.WriteString("x")
	case "exit":
		os.Exit(5)
	case "exit 0":
		os.Exit(0)
	case "deadlock":
		select {}
	case "recurse":
		recurse(0)
	case "memory":
		var all [][]byte
		for {
			all = append(all, make([]byte, 1<<20))
			for i := range all[len(all)-1] {
				all[len(all)-1][i] = 1
			}
		}
	case "goroutines":
		var group sync.WaitGroup
		var mutex sync.Mutex
		sum := 0
		for i := range 100 {
			group.Add(1)
			go func() {
				defer group.Done()
				time.Sleep(time.Duration(i%3) * time.Millisecond)
				mutex.Lock()
				sum += i
				mutex.Unlock()
			}()
		}
		group.Wait()
		fmt.Println("sum", sum)
	case "collect":
		for range 50 {
			_ = make([]byte, 1<<20)
		}
		runtime.GC()
		fmt.Println("collected")
	case "files":
		_, open := os.Open("/etc/passwd")
		_, list := os.ReadDir(".")
		write := os.WriteFile("/tmp/x", nil, 0o600)
		_, dial := net.Dial("tcp", "127.0.0.1:1")
		fmt.Println("refused", open != nil, list != nil, write != nil, dial != nil)
	case "environment":
		_, set := os.LookupEnv("HOME")
		fmt.Println("environment", len(os.Environ()), set, len(os.Args))
	case "stderr":
		fmt.Fprintln(os.Stderr, "to stderr")
		println("by println")
	case "stdin":
		_, err := os.Stdin.Read(make([]byte, 1))
		fmt.Println("stdin", err)
	case "clock":
		fmt.Println("clock", !time.Now().Before(started), time.Now().Year() >= 2020)
	case "sync":
		fmt.Println("sync", os.Stdout.Sync() != nil)
	}
}

//go:noinline
func recurse(depth int) int { return recurse(depth+1) + 1 }
