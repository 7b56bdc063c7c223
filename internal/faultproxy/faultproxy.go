// Package faultproxy is a TCP proxy for tests that cuts connections, delays
// bytes and loses them.
package faultproxy

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// A Proxy forwards TCP connections to a target until it is told not to. It
// ends with the test. Safe for concurrent use.
type Proxy struct {
	listener net.Listener
	target   string
	running  sync.WaitGroup // the goroutines of the proxy

	mu    sync.Mutex // guards what follows
	fault Fault
	links map[net.Conn]net.Conn // client to server
	done  bool
}

// A Fault is what is wrong with a proxy's connections, from now on. The zero
// Fault is nothing.
type Fault struct {
	// Refuse closes new connections at once.
	Refuse bool
	// LoseRequests and LoseReplies swallow what the client or the server
	// sends; connections stay open. Both together are a half-open connection.
	LoseRequests, LoseReplies bool
	// Delay holds back every piece of data, in both directions.
	Delay time.Duration
}

// Start starts a proxy in front of the target's address.
func Start(t testing.TB, target string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: listener, target: target, links: make(map[net.Conn]net.Conn)}
	p.running.Go(p.accept) // ends when the listener is closed
	t.Cleanup(p.close)
	return p
}

// Addr returns the address that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Set replaces the fault. It holds for open connections, too.
func (p *Proxy) Set(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault = f
}

// Cut closes every open connection on both sides.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client, server := range p.links {
		client.Close()
		server.Close()
	}
}

// Say sends a text on every open connection to its client, as if it came from the
// server, whose own words may be around it.
func (p *Proxy) Say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for client := range p.links {
		_, _ = io.WriteString(client, text) // who has left doesn't hear it
	}
}

// Links returns how many connections are open.
func (p *Proxy) Links() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.links)
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	p.listener.Close()
	p.Cut()
	p.running.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		if p.current().Refuse {
			client.Close()
			continue
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			client.Close()
			continue
		}
		p.mu.Lock()
		if p.done {
			client.Close()
			server.Close()
		}
		p.links[client] = server
		p.mu.Unlock()
		p.running.Go(func() { // ends with the connection
			var pair sync.WaitGroup
			pair.Go(func() { p.forward(server, client, func(f Fault) bool { return f.LoseRequests }) })
			pair.Go(func() { p.forward(client, server, func(f Fault) bool { return f.LoseReplies }) })
			pair.Wait()
			p.mu.Lock()
			delete(p.links, client)
			p.mu.Unlock()
		})
	}
}

// forward copies from one side to the other until either is closed, and then
// closes both.
func (p *Proxy) forward(to, from net.Conn, lost func(Fault) bool) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 {
			f := p.current()
			time.Sleep(f.Delay)
			if !lost(f) {
				if _, err := to.Write(buffer[:n]); err != nil {
					return
				}
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *Proxy) current() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault
}
