package main

import (
	"errors"
	"net"
	"sync"
	"time"
)

// behaviour is what tests make the plugin do wrong.
type behaviour struct {
	fail       []pair
	hang       []pair
	drop       string
	leave      string
	connection *connection
}

func (b *behaviour) meet(event string) error {
	for _, hang := range b.hang {
		if hang.key == event {
			pause, err := time.ParseDuration(hang.value)
			if err != nil {
				return err
			}
			time.Sleep(pause)
		}
	}
	if b.drop == event {
		b.connection.Close()
	}
	if b.leave == event {
		b.connection.closeAfterAnswer()
	}
	for _, fail := range b.fail {
		if fail.key == event {
			return errors.New(fail.value)
		}
	}
	return nil
}

// connection is the socket, able to close itself right after the answer that is due.
type connection struct {
	net.Conn
	lock   sync.Mutex
	writes int
}

func dial(socket string) (*connection, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &connection{Conn: conn}, nil
}

// writesOfAnswer: upstream's ttRPC writes header and body at once, its mux adds a write of its own.
const writesOfAnswer = 2

func (c *connection) closeAfterAnswer() {
	c.lock.Lock()
	defer c.lock.Unlock()
	c.writes = writesOfAnswer
}

func (c *connection) Write(data []byte) (int, error) {
	n, err := c.Conn.Write(data)
	c.lock.Lock()
	defer c.lock.Unlock()
	if c.writes > 0 {
		if c.writes--; c.writes == 0 {
			c.Conn.Close()
		}
	}
	return n, err
}
