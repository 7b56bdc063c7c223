package measure

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// warmUp is how many messages at least are published before it counts.
	warmUp = 2000
	// startPatience is how long a relay has to subscribe.
	startPatience = time.Minute
	// quiet is how long nothing comes when nobody knows how much is to come.
	quiet = 500 * time.Millisecond
	// look is the pause between looks at what Redis holds back.
	look = 5 * time.Millisecond
)

// Run starts a relay, puts it under a load, waits for all that comes out, and
// ends the relay. Messages that don't come are no error, but in the result. The
// error is that the relay, or Redis, did not work; or ctx's.
func Run(ctx context.Context, relay Relay, load *Load, o Options) (_ *Result, err error) {
	if o.For <= 0 && o.Count == 0 {
		return nil, errors.New("a run needs an end")
	}
	o.Patience = cmp.Or(o.Patience, 3*time.Second)
	options, err := redis.ParseURL(o.URL)
	if err != nil {
		return nil, err
	}
	rdb := redis.NewClient(options)
	defer rdb.Close()
	r := &run{Options: o, rdb: rdb, load: load, result: &Result{Channels: make(map[string]Arrivals)}}
	if o.Rate > 0 {
		r.result.Latency = new(Histogram)
	}
	if r.counter, err = newCounter(ctx, o.URL, load, r.result.Latency); err != nil {
		return nil, err
	}
	defer r.counter.close()
	if r.generator, err = newGenerator(ctx, o.URL, load); err != nil {
		return nil, err
	}
	defer r.generator.conn.Close()
	if r.process, err = start(relay); err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			r.process.stop()
		}
	}()
	if err := r.ready(ctx, relay); err != nil {
		return nil, err
	}
	if err := r.measure(ctx); err != nil {
		return nil, err
	}
	// What comes while the relay ends counts, too.
	r.process.stop()
	stopped = true
	if err := r.settle(ctx); err != nil {
		return nil, err
	}
	r.counter.close()
	r.result.CPU = r.process.used(r.cpu[0], r.cpu[1])
	r.result.Matched = load.Matched(r.result.Published) - load.Matched(r.first)
	r.result.Out = r.counter.total.Load() - r.before
	for name, t := range load.channels {
		r.result.Channels[name] = Arrivals{Expected: expected(t.before, r.result.Published), Arrived: r.counter.channels[name].arrived.Load(), Exact: t.exact}
	}
	return r.result, nil
}

// A run is one relay under one load.
type run struct {
	Options
	rdb       *redis.Client
	load      *Load
	generator *generator
	counter   *counter
	process   *process
	result    *Result
	cpu       [2]time.Duration // of the relay, at begin and end
	first     uint64           // message that is measured
	before    uint64           // what came out until then
}

// ready waits until the relay has subscribed.
func (r *run) ready(ctx context.Context, relay Relay) error {
	for deadline := time.Now().Add(startPatience); ; {
		ok, err := subscribed(ctx, r.rdb, relay.Names, relay.Globs)
		if ok || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the relay did not subscribe within %v", startPatience)
		}
		if err := r.pause(ctx, 2*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause waits, unless something fails.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case err := <-r.generator.failed:
		return err
	case err := <-r.counter.failed:
		return err
	case <-r.process.ended:
		return r.process.failure()
	}
}

// measure publishes: first what warms the relay up, then what is measured.
func (r *run) measure(ctx context.Context) error {
	turn := uint64(len(r.load.messages))
	warm := (warmUp + turn - 1) / turn * turn
	if err := r.publish(ctx, func(ctx context.Context) error {
		return r.generator.closed(ctx, warm, time.Time{}, r.window)
	}, nil); err != nil {
		return err
	}
	if err := r.arrive(ctx); err != nil {
		return err
	}
	redisBefore, err := redisCPU(ctx, r.rdb)
	if err != nil {
		return err
	}
	result := r.result
	result.Memory = Memory{Begin: r.process.resident()}
	r.cpu[0] = r.process.cpu()
	first := r.generator.sent.Load()
	r.first, r.before = first, r.counter.total.Load()
	start := time.Now()
	generate := func(ctx context.Context) error {
		var until time.Time
		if r.For > 0 {
			until = start.Add(r.For)
		}
		return r.generator.closed(ctx, first+r.count(), until, r.window)
	}
	if r.Rate > 0 {
		start = start.Add(time.Millisecond)
		r.counter.start.Store(&schedule{first: first, start: start, rate: r.Rate})
		generate = func(ctx context.Context) error { return r.generator.open(ctx, r.count(), r.Rate, start) }
	}
	if err := r.publish(ctx, generate, func() float64 {
		part := float64(r.generator.sent.Load()-first) / float64(r.count())
		if r.For > 0 {
			part = max(part, time.Since(start).Seconds()/r.For.Seconds())
		}
		return min(part, 1)
	}); err != nil {
		return err
	}
	published := time.Now()
	if err := r.arrive(ctx); err != nil {
		return err
	}
	r.cpu[1] = r.process.cpu()
	redisAfter, err := redisCPU(ctx, r.rdb)
	if err != nil {
		return err
	}
	result.RedisCPU = redisAfter - redisBefore
	result.Memory.End = r.process.resident()
	result.Memory.Peak = max(result.Memory.Peak, result.Memory.Begin, result.Memory.End)
	result.Published = r.generator.sent.Load()
	result.Messages = result.Published - first
	result.Behind = r.generator.behind
	end := r.counter.lastArrival()
	if end.Before(published) {
		end = published
	}
	result.Elapsed = end.Sub(start)
	return nil
}

// count returns how many messages are to be measured.
func (r *run) count() uint64 {
	count := r.Count
	if count == 0 {
		count = math.MaxInt64
	}
	if r.Rate > 0 && r.For > 0 {
		count = min(count, max(1, uint64(r.For.Seconds()*r.Rate)))
	}
	return count
}

// window returns up to which message may be published, in a closed loop: only
// so many are on their way as far as what has come out tells.
func (r *run) window() uint64 {
	if r.Window == 0 {
		return math.MaxInt64
	}
	sent, arrived := r.generator.sent.Load(), r.counter.total.Load()
	if sent < r.Window || expected(r.load.outputs, sent-r.Window) <= arrived {
		// One write may be more than the window.
		return sent + max(1, r.Window/4)
	}
	return sent
}

// publish runs a generator, and watches meanwhile. Part, if not nil, says how
// much is done.
func (r *run) publish(ctx context.Context, generate func(context.Context) error, part func() float64) error {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- generate(ctx) }()
	defer func() {
		cancel()
		r.generator.paused.Store(false)
		if ended != nil {
			_ = r.generator.conn.SetWriteDeadline(time.Unix(1, 0))
			<-ended
		}
	}()
	var looked time.Time
	still := stillness{patience: r.Patience}
	for {
		select {
		case err := <-ended:
			ended = nil
			if part != nil && r.Progress != nil && err == nil {
				r.Progress(1)
			}
			return err
		default:
		}
		if r.Rate == 0 {
			held, err := heldBack(ctx, r.rdb)
			if err != nil {
				return err
			}
			if held > maxHeldBack {
				r.generator.paused.Store(true)
			} else if held < fineHeldBack {
				r.generator.paused.Store(false)
			}
			if still.since(r.generator.sent.Load(), r.counter.total.Load(), uint64(held)) {
				return nil // arrive says what is wrong
			}
		}
		if part != nil && time.Since(looked) > 100*time.Millisecond {
			looked = time.Now()
			resident := r.process.resident()
			r.result.Memory.Peak = max(r.result.Memory.Peak, resident)
			done := part()
			if done >= 0.5 && r.result.Memory.Half == 0 {
				r.result.Memory.Half = resident
			}
			if r.Progress != nil {
				r.Progress(done)
			}
		}
		if err := r.pause(ctx, look); err != nil {
			return err
		}
	}
}

// arrive waits until all has come that is expected, or nothing more comes.
func (r *run) arrive(ctx context.Context) error {
	want := expected(r.load.outputs, r.generator.sent.Load())
	still := stillness{patience: r.Patience}
	if !r.load.exact() || want == 0 {
		want, still.patience = math.MaxUint64, quiet
	}
	for {
		arrived := r.counter.total.Load()
		if arrived >= want {
			return nil
		}
		if still.since(arrived) {
			// A relay that is behind is not one that loses.
			held, err := heldBack(ctx, r.rdb)
			switch {
			case err != nil || held == 0:
				return err
			case held == still.held:
				return fmt.Errorf("the relay does not read any more: Redis holds back %d bytes", held)
			}
			still = stillness{patience: r.Patience, held: held}
		}
		if err := r.pause(ctx, time.Millisecond); err != nil {
			return err
		}
	}
}

// stillness notices that figures don't change any more.
type stillness struct {
	patience time.Duration
	held     int64 // what Redis held back when this began
	last     [3]uint64
	changed  time.Time
}

// since reports whether the figures have been the same for as long as the
// patience lasts.
func (s *stillness) since(figures ...uint64) bool {
	var now [3]uint64
	copy(now[:], figures)
	if s.changed.IsZero() || now != s.last {
		s.last, s.changed = now, time.Now()
	}
	return time.Since(s.changed) > s.patience
}

// settle waits until the counter has read all that Redis has sent: what it has
// for it is answered in order.
func (r *run) settle(ctx context.Context) error {
	for deadline := time.Now().Add(r.Patience); time.Now().Before(deadline); {
		before := r.counter.total.Load()
		if before >= expected(r.load.outputs, r.result.Published) && r.load.exact() {
			break
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if held, err := heldBack(ctx, r.rdb); err != nil {
			return err
		} else if held == 0 && r.counter.total.Load() == before {
			break
		}
	}
	return nil
}
