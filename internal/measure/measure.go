// Package measure puts a relay under load: a program that takes messages from
// some channels of Redis and publishes some of them to others. It publishes,
// counts what comes out, and tells what that took the relay and Redis.
//
// Three processes are told apart by it: the relay is a child, Redis is its own,
// and whoever calls Run generates and counts. Everything goes through Redis.
//
//   - load.go: what is published, and what is to come out for it
//   - run.go: one run, from the relay's start to its end
//   - generate.go, count.go: the two ends of the way
//   - conn.go, process.go: Redis and the relay, as seen from outside
//   - histogram.go: many latencies in little memory
//   - raw.go: the floor, a relay that does nothing but relay
package measure

import "time"

// A Relay is a program to be measured.
type Relay struct {
	// Path and Args are the command, and Env what its environment has
	// besides this process's own.
	Path string
	Args []string
	Env  []string
	// Stdin is what it reads, if anything.
	Stdin []byte
	// Names are the channels that it subscribes to, Globs how many
	// patterns: the load begins when Redis has all of them.
	Names []string
	Globs int
	// Log, if not nil, gets every line that it writes to standard error, on
	// a goroutine of the run's. It must not keep the line.
	Log func(line []byte)
}

// Options say how a relay is put under load.
type Options struct {
	// URL is that of Redis.
	URL string
	// Rate is how many messages are published per second, at even
	// distances, whether the relay keeps up or not: an open loop. 0 is a
	// closed loop, as fast as Redis and the relay take them.
	Rate float64
	// For is how long messages are published, and Count how many are,
	// whichever ends first; 0 is no bound, but one is needed.
	For   time.Duration
	Count uint64
	// Window, if not 0, is how many messages may be on their way in a closed
	// loop, and while the relay warms up, as far as that can be told from
	// what comes out. By default only what Redis holds back for the relay is
	// bounded.
	Window uint64
	// Patience is how long to wait for the next message when some are
	// missing. Default 3 s.
	Patience time.Duration
	// Progress, if not nil, is called ten times a second with what part is
	// done.
	Progress func(part float64)
}

// A Result is what one run has shown. The first messages, which warm the relay
// up, are counted but not measured.
type Result struct {
	Published uint64 // messages, all of them
	// Messages, Matched and Out are measured messages, those that a rule
	// keeps, and what came out of them.
	Messages, Matched, Out uint64
	Elapsed                time.Duration
	// CPU is what the relay used for the measured messages, and RedisCPU
	// what Redis did.
	CPU, RedisCPU time.Duration
	// Latency is from when a message should have been published, which in an
	// open loop is known, to when what came of it was read. Nil in a closed
	// loop.
	Latency *Histogram
	// Behind is how much later than it should have, at worst, a message was
	// published in an open loop.
	Behind time.Duration
	Memory Memory
	// Channels counts what came out, of all messages.
	Channels map[string]Arrivals
}

// Rate returns the measured messages per second.
func (r *Result) Rate() float64 { return float64(r.Messages) / r.Elapsed.Seconds() }

// Each returns what a duration is for each measured message.
func (r *Result) Each(d time.Duration) time.Duration { return d / time.Duration(max(1, r.Messages)) }

// Memory is a relay's resident memory in bytes; 0 where the system does not
// tell.
type Memory struct {
	Begin int64 // after the first messages
	Half  int64
	End   int64
	Peak  int64 // of what was looked at, every 100 ms
}

// Arrivals says what came out to one channel.
type Arrivals struct {
	Expected uint64
	Arrived  uint64
	// Exact says that Expected can be relied on.
	Exact bool
}

// Lost returns how many messages are missing, in all channels that can tell.
func (r *Result) Lost() (lost uint64) {
	for _, c := range r.Channels {
		if c.Exact && c.Arrived < c.Expected {
			lost += c.Expected - c.Arrived
		}
	}
	return lost
}

// Extra returns how many more than expected have come.
func (r *Result) Extra() (extra uint64) {
	for _, c := range r.Channels {
		if c.Exact && c.Arrived > c.Expected {
			extra += c.Arrived - c.Expected
		}
	}
	return extra
}
