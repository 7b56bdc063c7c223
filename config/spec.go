package config

import (
	"reflect"
	"slices"
	"strings"
)

// The keys of the file, with their documentation. They are never filled in:
// the sections' readers take the known keys from here, and the JSON Schema is
// generated from them (run the tests with -update after a change). The tag
// default is for the schema too.

type fileSpec struct {
	Redis          redisSpec              `json:"redis,omitempty" jsonschema_description:"The Redis server that messages come from and go to. Default: localhost:6379 without a password."`
	StrictChannels boolean                `json:"strict_channels,omitempty" default:"false" jsonschema_description:"Whether every channel that a rule names must be declared under channels, so that a misspelled one is an error."`
	Channels       map[string]channelSpec `json:"channels,omitempty" jsonschema_description:"What the messages of channels and streams must be. A key is a channel's or a stream's name, or a glob as PSUBSCRIBE takes it. An exact name goes before globs, and among globs the one with the longest literal prefix."`
	Modules        map[string]moduleSpec  `json:"modules,omitempty" jsonschema_description:"WebAssembly modules that rules can name under wasm."`
	Webhooks       map[string]webhookSpec `json:"webhooks,omitempty" jsonschema_description:"HTTP endpoints that rules can name under to, as {webhook: name}."`
	Rules          map[string]ruleSpec    `json:"rules" jsonschema_description:"The rules by their names, in the order in which they act on a message. Each goes in this order: when, wasm, set, to."`
	Server         *serverSpec            `json:"server,omitempty" jsonschema_description:"The admin server of filterd run: its state, its metrics, reload, tap and explain. {} takes the defaults. Without the section there is none."`
	Traces         *tracesSpec            `json:"traces,omitempty" jsonschema_description:"Records the way of messages as spans of OpenTelemetry, which filterd run sends to a collector: of events whose traceparent says so. {} takes the defaults. Without the section nothing is recorded."`
	HA             *haSpec                `json:"ha,omitempty" jsonschema_description:"Several daemons with the same rules: the one that has a lease in Redis sends what becomes of the messages of channels, and the others stand by. Streams are not affected: their groups share the work in any case."`
}

type tracesSpec struct {
	Endpoint    word        `json:"endpoint,omitempty" default:"http://localhost:4318" jsonschema_description:"The collector's URL for OTLP over HTTP (protobuf); /v1/traces follows where it has no path. Takes ${VARIABLE}. Before the default come the variables OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT."`
	Headers     headers     `json:"headers,omitempty" jsonschema_description:"Headers of requests to the collector, such as {authorization: ${file:path}}: each value as ${VARIABLE} or ${file:path}."`
	Service     word        `json:"service,omitempty" default:"filterd" jsonschema_description:"The service's name. Before the default comes the variable OTEL_SERVICE_NAME."`
	Sample      float64     `json:"sample,omitempty" default:"0" jsonschema:"minimum=0,maximum=1" jsonschema_description:"The part of the messages without a trace that begin one: 0.01 is one in a hundred. An event with a traceparent is recorded if that says so."`
	Traceparent traceparent `json:"traceparent,omitempty" default:"keep" jsonschema_description:"What a recorded event has as its traceparent when it goes on. keep: that of the span its trace began with, as CloudEvents has it, and not a byte changes. replace: that of the span in which filterd sends it, so that whoever reads it continues from there; an event that began a trace here gets one."`
}

type haSpec struct {
	Group word     `json:"group" jsonschema_description:"The name that daemons with the same rules have in common: at most 64 letters, digits, dots, dashes and underscores."`
	Lease duration `json:"lease,omitempty" default:"5s" jsonschema_description:"How long nobody sends, at most, after the daemon that does has died. The same for all daemons of the group, from 500ms on."`
}

type serverSpec struct {
	Listen word           `json:"listen,omitempty" default:"127.0.0.1:9464" jsonschema_description:"The host:port to listen on. An address that other machines reach needs tls and token."`
	Token  password       `json:"token,omitempty" jsonschema_description:"What a request must show, as ${VARIABLE} or ${file:path}, to reload, to see messages or profiles, or to see anything where other machines reach the server. At least 16 characters. Default: nobody may."`
	Probe  word           `json:"probe,omitempty" jsonschema_description:"The host:port of a second server, plain HTTP, with /livez, /readyz and /metrics only. Default: none."`
	TLS    *serverTLSSpec `json:"tls,omitempty" jsonschema_description:"Makes the admin server encrypt. The files are read again when they change."`
}

type serverTLSSpec struct {
	Cert word `json:"cert" jsonschema_description:"A PEM file with the server's certificate, and those that vouch for it."`
	Key  word `json:"key" jsonschema_description:"A PEM file with the certificate's private key."`
}

type redisSpec struct {
	URL              word      `json:"url,omitempty" jsonschema_description:"The server as redis://user@host:6379/0, or rediss:// for TLS. Takes ${VARIABLE}, ${VARIABLE:-default} and ${file:path}; a password may only come from there."`
	Mode             redisMode `json:"mode,omitempty" default:"single" jsonschema_description:"How the server is set up. Sentinel needs addrs and master, a cluster needs addrs."`
	Addrs            []word    `json:"addrs,omitempty" jsonschema_description:"The host:port of each sentinel, or of some of the cluster's nodes."`
	Host             word      `json:"host,omitempty" default:"localhost" jsonschema_description:"The server's host, where url is not given."`
	Port             integer   `json:"port,omitempty" default:"6379" jsonschema_description:"The server's port, where url is not given."`
	Master           word      `json:"master,omitempty" jsonschema_description:"The name by which the sentinels know the master."`
	DB               integer   `json:"db,omitempty" default:"0" jsonschema_description:"The number of the database, where url is not given. Pub/sub is the same in all of them."`
	Username         word      `json:"username,omitempty" jsonschema_description:"The user of Redis' ACL. Default: the user default."`
	Password         password  `json:"password,omitempty" jsonschema_description:"The user's password, as ${VARIABLE} or ${file:path}: never the password itself."`
	SentinelUsername word      `json:"sentinel_username,omitempty" jsonschema_description:"The user at the sentinels, if they have their own."`
	SentinelPassword password  `json:"sentinel_password,omitempty" jsonschema_description:"The password at the sentinels, as ${VARIABLE} or ${file:path}: never the password itself."`
	MaxMessage       byteSize  `json:"max_message,omitempty" default:"64MiB" jsonschema_description:"The largest message that is read: bytes, or a number with B, KiB or MiB, from 1MiB on and at least the largest max_size. A larger one is skipped, and reported as a gap; a larger entry of a stream becomes a dead letter without its payload."`
	TLS              *tlsSpec  `json:"tls,omitempty" jsonschema_description:"Encrypts the connection. {} takes the certificate authorities of the system. Paths are relative to the config file."`
}

type tlsSpec struct {
	CA         word `json:"ca,omitempty" jsonschema_description:"A PEM file with the certificate authorities to trust instead of the system's."`
	Cert       word `json:"cert,omitempty" jsonschema_description:"A PEM file with the client's certificate. Needs key."`
	Key        word `json:"key,omitempty" jsonschema_description:"A PEM file with the client's private key. Needs cert."`
	ServerName word `json:"server_name,omitempty" jsonschema_description:"The name that the server's certificate must have. Default: the host."`
}

type channelSpec struct {
	Envelope   envelope     `json:"envelope,omitempty" default:"auto" jsonschema_description:"How payloads carry their data. cloudevents: a CloudEvents 1.0 event in structured JSON. raw: any JSON document is the data. bytes: payloads are not parsed, the data is the payload as a string. auto: an object with specversion is an event, other JSON is raw, the rest is invalid."`
	Schema     schemaSource `json:"schema,omitempty" jsonschema_description:"What the data must satisfy: a JSON Schema (2020-12), or the path of a file with one, relative to the config file. A $ref stays within the schema's folder."`
	Contract   contractName `json:"contract,omitempty" jsonschema_description:"builtin takes the envelope and the schema that come with filterd for PRICE_DATA, TRADE_COMMANDS and BOT_STATUS."`
	Validate   validateMode `json:"validate,omitempty" default:"enforce" jsonschema_description:"Which messages are held against the schema: all, none, or a random part, as in {sample: 0.01}. Size and envelope are always checked."`
	MaxSize    byteSize     `json:"max_size,omitempty" default:"1MiB" jsonschema_description:"The largest payload: bytes, or a number with B, KiB or MiB."`
	DeadLetter deadLetter   `json:"dead_letter,omitempty" jsonschema_description:"The channel, or {stream: name}, where messages go that break the contract. Default: they are counted and dropped."`
	Stamped    boolean      `json:"stamped,omitempty" default:"false" jsonschema_description:"Whether the channel's events carry stamps: filterd publish and the library's publishers set the extensions producer and sequence, and filterd run counts exactly what is lost between them. Events without a stamp are as good as others."`
}

type moduleSpec struct {
	Path    string   `json:"path" jsonschema_description:"The module's file, relative to the config file."`
	SHA256  string   `json:"sha256,omitempty" jsonschema:"pattern=^[0-9a-f]{64}$" jsonschema_description:"The hash that the file must have, in hexadecimal."`
	Memory  byteSize `json:"memory,omitempty" default:"16MiB" jsonschema_description:"The most memory of one instance: bytes, or a number with B, KiB or MiB."`
	Fuel    integer  `json:"fuel,omitempty" default:"100000000" jsonschema_description:"The most instructions for one message."`
	Config  anything `json:"config,omitempty" jsonschema_description:"What the module is configured with: any value. Default: {}."`
	Publish names    `json:"publish,omitempty" jsonschema_description:"The channels, or globs of channels, that the module may emit messages to. Default: none."`
	KV      kv       `json:"kv,omitempty" jsonschema_description:"Gives the module a store of its own. memory: a reload keeps it, a restart does not. redis: it is in Redis, which filterd run connects to, and every process that runs the module shares it; a dry run has one in memory instead."`
}

type webhookSpec struct {
	URL         word     `json:"url" jsonschema_description:"Where messages are posted to: https, or http for networks under allow. Takes ${VARIABLE} and ${file:path}. Redirects are not followed, and no proxy is used."`
	Secrets     secrets  `json:"secrets,omitempty" jsonschema_description:"The keys that messages are signed with, as Standard Webhooks has it: one, or two while a key is changed; each ${VARIABLE} or ${file:path}, and 24 to 64 bytes in base64."`
	Allow       names    `json:"allow,omitempty" jsonschema_description:"Networks, such as 10.1.0.0/16, that the endpoint may be in although they are not of the public internet. Default: none."`
	Timeout     duration `json:"timeout,omitempty" default:"10s" jsonschema_description:"How long one attempt may take."`
	Attempts    integer  `json:"attempts,omitempty" default:"10" jsonschema_description:"How often a message is tried, at most. What the endpoint refuses (4xx, 3xx) is not tried again; 410 disables it until the next reload."`
	MaxBackoff  duration `json:"max_backoff,omitempty" default:"30s" jsonschema_description:"The longest pause between two attempts. It grows from half a second. A Retry-After of the endpoint holds besides, up to 5 minutes."`
	Concurrency integer  `json:"concurrency,omitempty" default:"4" jsonschema_description:"How many requests there are at once. Messages of one rule, channel and key stay in order."`
}

type ruleSpec struct {
	From       sources    `json:"from" jsonschema_description:"The channel the rule takes messages from, or a list of them. A glob such as prices.* is a pattern subscription. {stream: name} reads a stream as a member of a consumer group: nothing of it is lost. A message that several of them match is taken once."`
	When       condition  `json:"when,omitempty" jsonschema_description:"An expression (https://expr-lang.org) over data, event and channel that is true for the messages to keep. Default: all."`
	Profile    profile    `json:"profile,omitempty" jsonschema_description:"full lifts the bounds that keep an expression's work proportional to the message: for authors that are trusted."`
	Wasm       string     `json:"wasm,omitempty" jsonschema_description:"The module, of those under modules, that treats the messages that when keeps: it may drop them, replace them, or emit others."`
	Key        condition  `json:"key,omitempty" jsonschema_description:"An expression: messages of one channel with the same value are treated in order by the module and by webhooks, and are one key to overflow: conflate. Default: all messages of a channel are."`
	Set        members    `json:"set,omitempty" jsonschema_description:"Members of data to add or replace, in this order. A text is an expression; a number, a boolean and null stand for themselves. The rest of the payload keeps its bytes."`
	To         targets    `json:"to" jsonschema_description:"Where the messages go: a channel, ${expression} that yields the name of one, {stream: name}, {sharded: channel}, {webhook: name}, {callback: name}, {log: level}, or a list of these, at most 32."`
	Allow      names      `json:"allow,omitempty" jsonschema_description:"The channels, or globs of channels, that ${expression} under to may yield."`
	OnError    onError    `json:"on_error,omitempty" default:"drop" jsonschema_description:"What happens to a message that the rule fails on; it is counted in any case. pass: it goes on as it came in. halt: the daemon stops."`
	DeadLetter deadLetter `json:"dead_letter,omitempty" jsonschema_description:"The channel, or {stream: name}, for on_error: dead_letter."`
	Overflow   overflow   `json:"overflow,omitempty" jsonschema_description:"Which message gives way when the queue before a callback, a webhook, the log or the module is full; each is counted. conflate keeps the newest message of each key. block makes the source wait: the default for a rule that only takes streams, and for no other. Default: drop_oldest."`
	Shadow     boolean    `json:"shadow,omitempty" default:"false" jsonschema_description:"Whether the rule only pretends: it is evaluated and counted, fails and is tested as any other, and nothing of it is sent. Its module runs, and keeps what it keeps."`
	OnGap      boolean    `json:"on_gap,omitempty" default:"false" jsonschema_description:"Whether the rule's targets, but for ${expression}, also get an event of type io.filterd.gap.v1 for every span in which messages of the rule's channels may have been missed. Its data is {channels, from, to, length, reason}, the length in seconds, and lost and producer where stamps tell. when, wasm and set are not asked."`
	Loop       loop       `json:"loop,omitempty" jsonschema_description:"allowed turns the error that messages may come back to the rule into a warning. The rule then takes events only, and each may pass 8 times."`
	Tests      []testSpec `json:"tests,omitempty" jsonschema_description:"What the rule does with example messages; filterd test runs them."`
}

type shardedSourceSpec struct {
	Sharded word `json:"sharded" jsonschema_description:"A sharded channel: in a Cluster, of the server that has its slot. It is another one than the channel of the same name."`
}

type shardedSpec struct {
	Sharded word `json:"sharded" jsonschema_description:"Publishes the message to this sharded channel."`
}

type streamSourceSpec struct {
	Stream        word     `json:"stream" jsonschema_description:"The stream's key."`
	Group         word     `json:"group,omitempty" default:"filterd" jsonschema_description:"The consumer group. It is made where it is missing, and then begins with the stream's oldest entry. Processes with the same group share the work."`
	Field         word     `json:"field,omitempty" default:"event" jsonschema_description:"The field of an entry that holds the message. An entry with other fields, or without this one, is a dead letter."`
	ClaimIdle     duration `json:"claim_idle,omitempty" default:"15s" jsonschema_description:"After what time an entry that another process has not acknowledged is taken over. It should be above what the slowest target takes."`
	MaxDeliveries integer  `json:"max_deliveries,omitempty" default:"5" jsonschema:"minimum=1" jsonschema_description:"How often an entry is delivered in vain before it is a dead letter."`
}

type streamSpec struct {
	Stream word    `json:"stream" jsonschema_description:"Appends the message to this stream, in the field event."`
	MaxLen integer `json:"maxlen,omitempty" jsonschema:"minimum=1" jsonschema_description:"About how many entries the stream keeps. Default: all."`
}

type deadLetterSpec struct {
	Stream word    `json:"stream" jsonschema_description:"Appends dead letters to this stream."`
	MaxLen integer `json:"maxlen,omitempty" jsonschema:"minimum=1" jsonschema_description:"About how many dead letters the stream keeps: the oldest give way, whether or not anybody has seen them. Default: all, so that somebody has to empty it."`
}

type logSpec struct {
	Log logLevel `json:"log" jsonschema_description:"Logs the message at this level."`
}

type webhookTargetSpec struct {
	Webhook word `json:"webhook" jsonschema_description:"Posts the message to the endpoint of this name, of those under webhooks."`
}

type callbackSpec struct {
	Callback word `json:"callback" jsonschema_description:"Calls the Go function that the program has registered by this name. The daemon has none."`
}

type testSpec struct {
	In      anything   `json:"in" jsonschema_description:"The message: its data, which gets an envelope where the contract wants one; or a whole event, which is a mapping with specversion; or a text that is the payload itself."`
	Event   attributes `json:"event,omitempty" jsonschema_description:"Attributes of the event around the data, such as type and subject; with them there is one in any case. Default: id test, source filterd/test, the channel as type, and now as time."`
	Channel word       `json:"channel,omitempty" jsonschema_description:"The channel or stream it comes from. Default: the first of the rule's channels that is no glob, else its first stream."`
	Now     instant    `json:"now,omitempty" default:"2000-01-01T00:00:00Z" jsonschema_description:"When the message is received: what now() is in expressions, and the clock of the rule's module."`
	Out     outcome    `json:"out" jsonschema_description:"The channel or stream, or the list of these, that the message goes to; or drop: the rule does not keep it; invalid: it breaks its contract; error: the rule fails on it. {channel: payload} says as well what goes there, as payload does."`
	Payload anything   `json:"payload,omitempty" jsonschema_description:"What the rule sends, after wasm and set: its data, or a whole event, which is a mapping with specversion, each compared as JSON; or a text that is the payload itself. It holds for every target for which out has none. Default: anything."`
}

type sampleSpec struct {
	Sample float64 `json:"sample" jsonschema:"exclusiveMinimum=0,maximum=1" jsonschema_description:"The part of the messages that is checked: 0.01 is one in a hundred."`
}

// Types of values that are more, or less, than a Go type says.
type (
	word         string
	password     string
	boolean      bool
	integer      int
	redisMode    string
	envelope     string
	schemaSource string
	contractName string
	validateMode string
	byteSize     string
	duration     string
	deadLetter   string
	sources      []string
	names        []string
	secrets      []string
	condition    string
	profile      string
	members      map[string]any
	targets      []string
	onError      string
	overflow     string
	loop         string
	kv           string
	logLevel     string
	traceparent  string
	headers      map[string]string
	outcome      string
	attributes   map[string]any
	instant      string
	anything     struct{}
)

// Where modules keep values.
const (
	kvMemory = "memory"
	kvRedis  = "redis"
)

// The words that some keys take.
var (
	redisModes    = []string{"single", "sentinel", "cluster"}
	envelopes     = []string{"auto", "cloudevents", "raw", "bytes"}
	contractNames = []string{"builtin"}
	profiles      = []string{"full"}
	traceparents  = []string{"keep", "replace"}
	onErrors      = []string{"drop", "pass", "dead_letter", "halt"}
	overflows     = []string{"drop_oldest", "drop_newest", "conflate", "block"}
	loops         = []string{"allowed"}
	logLevels     = []string{"debug", "info", "warn", "error"}
	kvs           = []string{kvMemory, kvRedis}
	outcomes      = []string{"drop", "invalid", "error"}
)

// The keys of each section, in the order of their documentation.
var (
	fileKeys         = keysOf[fileSpec]()
	redisKeys        = keysOf[redisSpec]()
	tlsKeys          = keysOf[tlsSpec]()
	channelKeys      = keysOf[channelSpec]()
	moduleKeys       = keysOf[moduleSpec]()
	webhookKeys      = keysOf[webhookSpec]()
	ruleKeys         = keysOf[ruleSpec]()
	targetKeys       = slices.Concat(keysOf[streamSpec](), keysOf[shardedSpec](), keysOf[webhookTargetSpec](), keysOf[callbackSpec](), keysOf[logSpec]())
	deadLetterKeys   = keysOf[deadLetterSpec]()
	streamSourceKeys = keysOf[streamSourceSpec]()
	shardedKeys      = keysOf[shardedSourceSpec]()
	testKeys         = keysOf[testSpec]()
	validateKeys     = keysOf[sampleSpec]()
	serverKeys       = keysOf[serverSpec]()
	haKeys           = keysOf[haSpec]()
	tracesKeys       = keysOf[tracesSpec]()
	serverTLSKeys    = keysOf[serverTLSSpec]()
)

func keysOf[Spec any]() []string {
	t := reflect.TypeFor[Spec]()
	keys := make([]string, t.NumField())
	for i := range keys {
		keys[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	return keys
}
