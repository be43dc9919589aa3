// The NATS server with the configuration file that is named, until it is ended.
package main

import (
	"log"
	"os"

	"github.com/nats-io/nats-server/v2/server"
)

func main() {
	options, err := server.ProcessConfigFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	broker, err := server.NewServer(options)
	if err != nil {
		log.Fatal(err)
	}
	broker.ConfigureLogger()
	broker.Start()
	broker.WaitForShutdown()
}
