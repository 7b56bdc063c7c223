package pubsub

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/filterd/filterd"
	"github.com/filterd/filterd/internal/lograte"
	"github.com/redis/go-redis/v9"
)

// DefaultLease is how long a lease lasts by default.
const DefaultLease = 5 * time.Second

// The parts of its time in which a lease is renewed, looked at by those that
// don't have it, and asked for again after an attempt that failed; how long an
// attempt may take; and how long before its end it counts as lost. From a
// renewal on, three attempts can fail before that.
const (
	leaseRenew   = 5
	leaseLook    = 10
	leaseRetry   = 20
	leaseAttempt = 4
	leaseMargin  = 10
)

// A lease is a key of Redis that holds a token of the process that has it, and
// that expires unless it is renewed. Beside it, in the same slot of a Cluster, a
// hash remembers the fence, which is 1 more each time the lease is taken; when
// it was renewed last, by Redis' clock; and of the time before it was taken, who
// had it and when that one had last renewed it.
//
// leaseScript takes or renews the lease. It may run again: what is lost of it is
// only its reply. KEYS are the lease and the hash; ARGV the token, the lease's
// time in milliseconds, the highest fence that the caller has seen, and 1 if the
// lease may be taken from a Redis that has lost that fence. The reply is 1 if the
// caller has the lease, 0 if another one has, -1 if Redis has lost the fence;
// then the fence, the token of who has it, the milliseconds until it expires,
// the milliseconds since it was renewed last, by those before the caller if that
// has it, or -1, and who they were.
var leaseScript = newScript(`
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local state = redis.call('HMGET', KEYS[2], 'fence', 'renewed', 'holder', 'before', 'former')
local fence, renewed, before, former = tonumber(state[1] or 0), state[2], state[4] or '', state[5] or ''
local since = function(at)
	if at and at ~= '' then
		return math.max(now - tonumber(at), 0)
	end
	return -1
end
local has = redis.call('GET', KEYS[1])
if has and has ~= ARGV[1] then
	return {0, fence, has, redis.call('PTTL', KEYS[1]), since(renewed), ''}
end
if has then
	redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
	local known = tonumber(ARGV[3])
	if fence < known and ARGV[4] ~= '1' then
		return {-1, fence, '', -1, -1, ''}
	end
	redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
	fence, before, former = math.max(fence, known) + 1, renewed or '', state[3] or ''
	redis.call('HSET', KEYS[2], 'fence', fence, 'holder', ARGV[1], 'before', before, 'former', former)
end
redis.call('HSET', KEYS[2], 'renewed', now)
return {1, fence, ARGV[1], tonumber(ARGV[2]), since(before), former}
`)

// releaseScript gives the lease back, if the caller still has it.
var releaseScript = newScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
	return 0
end
local time = redis.call('TIME')
redis.call('HSET', KEYS[2], 'renewed', time[1] * 1000 + math.floor(time[2] / 1000))
return redis.call('DEL', KEYS[1])
`)

// LeaseOptions are a lease's. The zero value of a field is its default.
type LeaseOptions struct {
	// Lease is how long the lease lasts without being renewed: at most so
	// long nobody has it after the process that has it has died. All processes
	// of a group should have the same. Default DefaultLease.
	Lease time.Duration
	// Name names the process to the others of its group. Default host-pid.
	Name string
	// Logger gets who has the lease, and what goes wrong. Default
	// slog.Default().
	Logger *slog.Logger
}

// A Lease elects one of several processes, by a key in Redis. It is a
// [filterd.Lease]. The methods are safe for concurrent use, but Run must be
// called once.
//
// A process has the lease from when Redis has said so until the lease's time
// after it has last asked, less a tenth: then it can't have expired in Redis,
// whatever became of the process or its connection meanwhile. That is measured
// by the process' own clock, by the monotonic one and by the other, since the
// former stands still while a machine is suspended.
//
// Two processes may have it at a time for as long as it lasts, and no longer,
// where Redis loses what it has acknowledged: a failover to a replica that lagged
// behind, or a restart without persistence; and where Redis' clock jumps. A
// master that is cut off from its replicas and goes on renewing is stopped by
// min-replicas-to-write only.
type Lease struct {
	rdb     redis.UniversalClient
	group   string
	options LeaseOptions
	logger  *slog.Logger
	keys    []string // the lease, and the hash
	token   string
	reign   atomic.Pointer[reign] // the last one; nil: there was none
	retries lograte.Limiter       // limits the log lines about failed attempts

	// Of the goroutine of Run.
	fence   int64     // the highest that was seen
	renewed time.Time // when the lease was last known to be renewed, by whomever
	lost    time.Time // when Redis was found to have lost the fence; zero: it has it
	told    bool      // that the reign has ended

	mu      sync.Mutex // guards what follows
	other   string     // who has the lease; empty: this process, or nobody
	taken   uint64
	failure error // of the last attempt
}

var _ filterd.Lease = (*Lease)(nil)

// A reign is the time in which a process has the lease without a break. It is
// not modified.
type reign struct {
	fence int64
	end   time.Time // zero: it was given back
}

// lasts reports whether a reign hasn't ended by now, by either clock.
func (r *reign) lasts(now time.Time) bool {
	return r != nil && now.Before(r.end) && now.Round(0).Before(r.end.Round(0))
}

// LeaseStats is the state of a [Lease].
type LeaseStats struct {
	Group  string
	Lease  time.Duration
	Leads  bool   // this process has it
	Leader string // who has it, as far as this process knows; empty: nobody
	Fence  uint64 // of this process' last reign; 0: there was none
	Taken  uint64 // how often this process has taken it
}

// NewLease makes the lease of a group, whose name is not empty and has no braces.
// The client stays the caller's; its ContextTimeoutEnabled must be set, as
// [Options.Client] does, or an attempt may outlast the lease.
func NewLease(rdb redis.UniversalClient, group string, options LeaseOptions) *Lease {
	if options.Lease <= 0 {
		options.Lease = DefaultLease
	}
	options.Name = cmp.Or(options.Name, processName())
	key := "filterd:ha:{" + group + "}"
	return &Lease{
		rdb: rdb, group: group, options: options, failure: errors.New("not asked for yet"), logger: cmp.Or(options.Logger, slog.Default()).With("group", group),
		keys: []string{key, key + ":state"}, token: options.Name + " " + rand.Text(),
	}
}

// Held implements [filterd.Lease].
func (l *Lease) Held() (fence uint64, held bool) {
	r := l.reign.Load()
	if r == nil {
		return 0, false
	}
	return uint64(r.fence), r.lasts(time.Now())
}

// Stats returns the state.
func (l *Lease) Stats() LeaseStats {
	s := LeaseStats{Group: l.group, Lease: l.options.Lease}
	s.Fence, s.Leads = l.Held()
	l.mu.Lock()
	defer l.mu.Unlock()
	s.Leader, s.Taken = l.other, l.taken
	if s.Leads {
		s.Leader = l.options.Name
	}
	return s
}

// Ready says why it is not known who has the lease; nil if it is.
func (l *Lease) Ready() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, held := l.Held(); held || l.failure == nil {
		return nil
	}
	return fmt.Errorf("the lease of group %s: %w", l.group, l.failure)
}

// Run takes the lease whenever nobody has it, and renews it, until ctx ends; then
// it gives it back, so that the next one needs not wait. Gap is called, on the
// caller's goroutine, with every span in which nobody was known to have the lease
// before this process had it: without channels, since all are meant. Answered is
// called once Redis has said for the first time whether this process has the
// lease; it may be nil.
func (l *Lease) Run(ctx context.Context, gap func(filterd.Gap), answered func()) {
	for {
		pause, err := l.attempt(ctx, gap)
		if err == nil && answered != nil {
			answered()
			answered = nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			l.release()
			return
		}
	}
}

// attempt takes or renews the lease if it can be, and returns when to try again.
func (l *Lease) attempt(ctx context.Context, gap func(filterd.Gap)) (pause time.Duration, err error) {
	lease := l.options.Lease
	sent, before := time.Now(), l.reign.Load()
	// Who has the lease may have it again at once. Others let the time pass in
	// which someone may still count on what Redis has lost.
	force := before.lasts(sent) || !l.lost.IsZero() && sent.Sub(l.lost) > lease
	reply, err := l.ask(ctx, force)
	l.mu.Lock()
	l.failure = err
	l.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			if suppressed, ok := l.retries.Allow(); ok {
				l.logger.Warn("the lease can't be asked for, trying again", "address", address(l.rdb), "error", err, "suppressed", suppressed)
			}
		}
		l.noteEnd()
		return lease / leaseRetry, err
	}
	now := time.Now()
	if reply.outcome == leaseForgotten {
		if l.lost.IsZero() {
			l.lost = now
			l.logger.Warn("redis has lost who has the lease: waiting until it has expired", "fence", l.fence)
		}
		l.setOther("")
		l.noteEnd()
		return lease / leaseLook, nil
	}
	l.lost = time.Time{}
	if reply.outcome == leaseOthers {
		l.fence = max(l.fence, reply.fence)
		if reply.since >= 0 {
			l.renewed = sent.Add(-reply.since)
		}
		if l.setOther(nameOf(reply.holder)) {
			l.logger.Info("standby", "leader", nameOf(reply.holder), "fence", reply.fence)
		}
		if before != nil && !before.end.IsZero() { // whatever is left of it: another one has it
			l.reign.Store(&reign{fence: before.fence})
		}
		return max(time.Millisecond, min(lease/leaseLook, reply.expires+time.Millisecond)), nil
	}
	l.rule(sent, before, &reign{reply.fence, sent.Add(lease - lease/leaseMargin)}, reply, gap)
	return lease / leaseRenew, nil
}

// rule begins a reign, or makes it last longer. Spans that Redis tells of count
// from when it was asked: they may begin too early, but not too late.
func (l *Lease) rule(sent time.Time, before, next *reign, reply leaseReply, gap func(filterd.Gap)) {
	l.reign.Store(next)
	now := time.Now()
	renewed := l.renewed
	l.fence, l.renewed, l.told = next.fence, now, false
	l.setOther("")
	if before == nil || before.fence != next.fence {
		l.mu.Lock()
		l.taken++
		l.mu.Unlock()
	}
	hole := filterd.Gap{From: renewed, To: now, Reason: "the lease was taken over, and redis has lost from whom"}
	switch {
	case before.lasts(now): // so there is none
		return
	case before != nil && !before.end.IsZero() && (before.fence == next.fence || reply.former == l.token):
		hole.From, hole.Reason = before.end, "the lease was not renewed in time"
	case reply.since >= 0:
		hole.From, hole.Reason = sent.Add(-reply.since), "the lease was taken over from "+nameOf(reply.former)
	}
	l.logger.Info("leader", "fence", next.fence, "former", nameOf(reply.former))
	if !hole.From.IsZero() {
		l.logger.Warn("messages may have been missed", "length", hole.Length(), "from", hole.From, "to", hole.To, "reason", hole.Reason)
		gap(hole)
	}
}

// noteEnd logs, once, that a reign has ended without another one's having begun.
func (l *Lease) noteEnd() {
	if r := l.reign.Load(); r != nil && !r.end.IsZero() && !r.lasts(time.Now()) && !l.told {
		l.told = true
		l.logger.Warn("the lease was not renewed in time: nothing is sent until it is", "fence", r.fence)
	}
}

// setOther notes who has the lease, and reports whether that is news.
func (l *Lease) setOther(name string) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news = l.other != name
	l.other = name
	return news
}

// release gives the lease back.
func (l *Lease) release() {
	r := l.reign.Load()
	if r == nil || r.end.IsZero() {
		return
	}
	l.reign.Store(&reign{fence: r.fence})
	ctx, cancel := context.WithTimeout(context.Background(), l.options.Lease/leaseAttempt)
	defer cancel()
	if _, err := l.eval(ctx, releaseScript, l.token); err != nil {
		l.logger.Warn("the lease can't be given back: it expires", "address", address(l.rdb), "error", err)
	}
}

// What an attempt came to.
const (
	leaseOwn       = 1
	leaseOthers    = 0
	leaseForgotten = -1
)

// A leaseReply is what leaseScript says.
type leaseReply struct {
	outcome int64
	fence   int64
	holder  string
	expires time.Duration
	since   time.Duration // negative: unknown
	former  string
}

// ask runs leaseScript.
func (l *Lease) ask(ctx context.Context, force bool) (r leaseReply, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.options.Lease/leaseAttempt)
	defer cancel()
	forced := 0
	if force {
		forced = 1
	}
	reply, err := l.eval(ctx, leaseScript, l.token, l.options.Lease.Milliseconds(), l.fence, forced)
	if err != nil {
		return r, err
	}
	unexpected := fmt.Errorf("unexpected reply: %v", reply)
	parts, ok := reply.([]any)
	if !ok || len(parts) != 6 {
		return r, unexpected
	}
	var numbers [4]int64
	for i, at := range [...]int{0, 1, 3, 4} {
		if numbers[i], ok = parts[at].(int64); !ok {
			return r, unexpected
		}
	}
	r.outcome, r.fence = numbers[0], numbers[1]
	r.expires, r.since = time.Duration(numbers[2])*time.Millisecond, time.Duration(numbers[3])*time.Millisecond
	r.holder, _ = parts[2].(string)
	r.former, _ = parts[5].(string)
	return r, nil
}

// eval runs a script on the lease's keys.
func (l *Lease) eval(ctx context.Context, s *script, argv ...any) (any, error) {
	return s.run(ctx, l.rdb, append([]any{len(l.keys), l.keys[0], l.keys[1]}, argv...))
}

// nameOf returns the name of the process that has made a token.
func nameOf(token string) string {
	name, _, _ := strings.Cut(token, " ")
	return name
}

// processName tells this process from others.
func processName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s-%d", host, os.Getpid())
}
