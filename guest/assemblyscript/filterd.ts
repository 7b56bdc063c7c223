/*
 * filterd.ts: write a filterd module in AssemblyScript. One file; interface version 1.
 *
 *     import { Config, Field, Message, Verdict, handle } from "./filterd";
 *     export { filterd_abi_v1, filterd_buffer, filterd_configure, filterd_process } from "./filterd";
 *
 *     let price: Field;
 *
 *     function configure(config: Config): void {
 *       price = config.field("data.price");
 *     }
 *
 *     function process(m: Message): Verdict {
 *       return m.f64(price) > 100 ? Verdict.Pass : Verdict.Drop;
 *     }
 *
 *     handle(configure, process);
 *
 * Build:
 *
 *     npx --yes --package=assemblyscript@0.28.20 asc my.ts -O3 --runtime incremental --use abort= -o my.wasm
 *
 * Leave --runtime incremental as it is: the stub and minimal runtimes never free what your handler allocates.
 *
 * The six things that a module can do:
 *
 *     handle     handle(configure, process); export filterd_process_batch too to take many messages in one call
 *     field      config.field declares; m.f64, m.bool, m.kind, m.text read
 *     replace    return m.replace(payload);
 *     emit       m.emit("channel", payload)
 *     fail, log  return m.fail("why");  config.fail("why");  m.log(Level.Warn, "what")
 *     kv         m.kvGet, m.kvSet, m.kvIncr
 *
 * Only what you call is imported, so a module that keeps nothing needs no `kv:` in its configuration.
 *
 * Memory: the host writes each message into a buffer of this file's own, 16-aligned, which is replaced when a longer message
 * comes. Everything that Message returns is a copy, yours to keep. The host copies whatever you hand it.
 *
 * Limits: a text for fail and log has 1 KiB, a kv key too. A message has 32 emits of 4 MiB together, a module 256 fields.
 * Every call has a budget of instructions, and a module that overruns it, or traps (an index out of range, a null), gets a
 * fresh instance: global variables are lost then, and each worker has its own. Keep in kv what must last. With --use abort= a
 * trap has no text: call fail.
 */

// @ts-ignore: decorator
@external("filterd", "replace") declare function hostReplace(ptr: usize, len: i32): void;
// @ts-ignore: decorator
@external("filterd", "emit") declare function hostEmit(channel: usize, channelLen: i32, ptr: usize, len: i32): i32;
// @ts-ignore: decorator
@external("filterd", "fail") declare function hostFail(ptr: usize, len: i32): void;
// @ts-ignore: decorator
@external("filterd", "log") declare function hostLog(level: i32, ptr: usize, len: i32): void;
// @ts-ignore: decorator
@external("filterd", "channel") declare function hostChannel(ptr: usize, cap: i32): i32;
// @ts-ignore: decorator
@external("filterd", "field") declare function hostField(path: usize, len: i32): i32;
// @ts-ignore: decorator
@external("filterd", "field_kind") declare function hostFieldKind(id: i32): i32;
// @ts-ignore: decorator
@external("filterd", "field_f64") declare function hostFieldF64(id: i32): f64;
// @ts-ignore: decorator
@external("filterd", "field_bool") declare function hostFieldBool(id: i32): i32;
// @ts-ignore: decorator
@external("filterd", "field_bytes") declare function hostFieldBytes(id: i32, ptr: usize, cap: i32): i32;
// @ts-ignore: decorator
@external("filterd", "now_ns") declare function hostNowNs(): i64;
// @ts-ignore: decorator
@external("filterd", "kv_get") declare function hostKvGet(key: usize, keyLen: i32, ptr: usize, cap: i32): i32;
// @ts-ignore: decorator
@external("filterd", "kv_set") declare function hostKvSet(key: usize, keyLen: i32, value: usize, len: i32, ttlMs: i32): i32;
// @ts-ignore: decorator
@external("filterd", "kv_incr") declare function hostKvIncr(key: usize, keyLen: i32, delta: i64, ttlMs: i32): i64;
// @ts-ignore: decorator
@external("filterd", "select") declare function hostSelect(i: i32): void;

/** What becomes of a message. */
export enum Verdict {
  /** What fail returns. */
  Failed = -1,
  Drop = 0,
  /** On, unchanged. */
  Pass = 1,
  /** What replace returns. */
  Replaced = 2,
}

/** What a field is. */
export enum Kind { Missing, Null, Bool, Number, String, Array, Object }

/** How much a log line matters. */
export enum Level { Debug, Info, Warn, Error }

/** What emit returns. */
export enum Emit {
  Ok = 0,
  /** The channel is not in the module's publish list. */
  NotAllowed = -1,
  /** More than 32 for one message. */
  TooMany = -2,
  /** The payload breaks the channel's contract. */
  BreaksContract = -3,
}

/** A field of the messages, from Config.field. */
export type Field = i32;

let configured: (config: Config) => void = (config: Config): void => {};
let processed: (m: Message) => Verdict = (m: Message): Verdict => m.fail("no handler: call handle(configure, process)");

/** Makes the two functions the module's: configure is called once per instance, process for each message. */
export function handle(configure: (config: Config) => void, process: (m: Message) => Verdict): void {
  configured = configure;
  processed = process;
}

/** The module's `config`, a JSON object, and where fields are declared. */
export class Config {
  failed: bool = false;

  /** The whole configuration. */
  constructor(readonly json: string) {}

  /** Declares a field: "data" or "event", then .member, ["member"] and [index]. */
  field(path: string): Field {
    const bytes = String.UTF8.encode(path);
    const id = hostField(changetype<usize>(bytes), bytes.byteLength);
    if (id < 0) this.fail("not a path: " + path);
    return id;
  }

  /** Keeps the module from loading, for this reason. The first one counts. */
  fail(why: string): void {
    if (!this.failed) fail(why);
    this.failed = true;
  }

  /** A number, or otherwise if there is no such member. */
  f64(name: string, otherwise: f64): f64 {
    const raw = member(this.json, name);
    if (raw == null) return otherwise;
    const c = raw.charCodeAt(0);
    if (c != 0x2d && (c < 0x30 || c > 0x39)) this.fail("config: " + name + " must be a number");
    return parseFloat(raw);
  }

  /** A string, or otherwise if there is no such member. */
  text(name: string, otherwise: string): string {
    const raw = member(this.json, name);
    if (raw == null) return otherwise;
    if (raw.charCodeAt(0) == 0x22) return unquoted(raw);
    this.fail("config: " + name + " must be a string");
    return otherwise;
  }

  /** A bool, or otherwise if there is no such member. */
  bool(name: string, otherwise: bool): bool {
    const raw = member(this.json, name);
    if (raw == null) return otherwise;
    if (raw != "true" && raw != "false") this.fail("config: " + name + " must be true or false");
    return raw == "true";
  }

  /** Writes a line into filterd's log. */
  log(level: Level, text: string): void {
    log(level, text);
  }
}

/** One message. */
export class Message {
  /** The payload's bytes in the buffer; the message's number in a batch until it is selected, else -1; its cells, or 0. */
  constructor(private at: usize, private len: i32, private unselected: i32, private cells: usize) {}

  /** The payload: an event with its envelope. */
  payload(): string {
    return String.UTF8.decodeUnsafe(this.at, this.len);
  }

  /** The channel's name. */
  channel(): string {
    this.select();
    let out = new ArrayBuffer(64);
    let n = hostChannel(changetype<usize>(out), out.byteLength);
    if (n > out.byteLength) {
      out = new ArrayBuffer(n);
      n = hostChannel(changetype<usize>(out), n);
    }
    return String.UTF8.decodeUnsafe(changetype<usize>(out), n);
  }

  /** When the message was received, in nanoseconds since 1970. */
  nowNs(): i64 {
    this.select();
    return hostNowNs();
  }

  /** What the field is. */
  kind(f: Field): Kind {
    return this.cells ? <Kind>load<i32>(this.cell(f)) : <Kind>hostFieldKind(f);
  }

  /** The field's number; NaN if it is not a number. */
  f64(f: Field): f64 {
    if (!this.cells) return hostFieldF64(f);
    return this.kind(f) == Kind.Number ? load<f64>(this.cell(f), 8) : f64.NaN;
  }

  /** Whether the field is true. */
  bool(f: Field): bool {
    if (!this.cells) return hostFieldBool(f) != 0;
    return this.kind(f) == Kind.Bool && load<u64>(this.cell(f), 8) != 0;
  }

  /** A string unescaped, or the JSON of anything else; null if the field is missing. */
  text(f: Field): string | null {
    if (this.cells) {
      const kind = this.kind(f);
      if (kind == Kind.Missing) return null;
      if (kind >= Kind.String) {
        return String.UTF8.decodeUnsafe(base + <usize>load<u64>(this.cell(f), 8), load<u32>(this.cell(f), 4));
      }
    }
    this.select();
    let out = new ArrayBuffer(64);
    let n = hostFieldBytes(f, changetype<usize>(out), out.byteLength);
    if (n > out.byteLength) {
      out = new ArrayBuffer(n);
      n = hostFieldBytes(f, changetype<usize>(out), n);
    }
    return n < 0 ? null : String.UTF8.decodeUnsafe(changetype<usize>(out), n);
  }

  /** Passes the message on with this payload: return m.replace(payload); */
  replace(payload: string): Verdict {
    const bytes = String.UTF8.encode(payload);
    return this.replaceBytes(bytes);
  }

  /** As replace, for bytes. */
  replaceBytes(payload: ArrayBuffer): Verdict {
    this.select();
    hostReplace(changetype<usize>(payload), payload.byteLength);
    return Verdict.Replaced;
  }

  /** One more message, sent when the verdict is in, and not if that is an error. */
  emit(channel: string, payload: string): Emit {
    this.select();
    const name = String.UTF8.encode(channel);
    const bytes = String.UTF8.encode(payload);
    return <Emit>hostEmit(changetype<usize>(name), name.byteLength, changetype<usize>(bytes), bytes.byteLength);
  }

  /** Fails the message, which then takes its rule's on_error: return m.fail("why"); */
  fail(why: string): Verdict {
    this.select();
    fail(why);
    return Verdict.Failed;
  }

  /** Writes a line into filterd's log. */
  log(level: Level, text: string): void {
    this.select();
    log(level, text);
  }

  /** The value kept under a key, null if there is none; needs `kv:` in the module's configuration, as the next two do. */
  kvGet(key: string): string | null {
    const k = String.UTF8.encode(key);
    let out = new ArrayBuffer(64);
    let n = hostKvGet(changetype<usize>(k), k.byteLength, changetype<usize>(out), out.byteLength);
    while (n > out.byteLength) {
      out = new ArrayBuffer(n);
      n = hostKvGet(changetype<usize>(k), k.byteLength, changetype<usize>(out), n);
    }
    return n < 0 ? null : String.UTF8.decodeUnsafe(changetype<usize>(out), n);
  }

  /** Keeps a value for ttlMs milliseconds, or for good if that is 0. False says that nothing more can be kept. */
  kvSet(key: string, value: string, ttlMs: i32): bool {
    const k = String.UTF8.encode(key);
    const v = String.UTF8.encode(value);
    return 0 == hostKvSet(changetype<usize>(k), k.byteLength, changetype<usize>(v), v.byteLength, ttlMs);
  }

  /**
   * Adds to a counter, which begins at 0, and returns its new value. The counter is forgotten ttlMs after it began, or never
   * if that is 0. A value that is no whole number, and no room for a counter, end the instance.
   */
  kvIncr(key: string, delta: i64, ttlMs: i32): i64 {
    const k = String.UTF8.encode(key);
    return hostKvIncr(changetype<usize>(k), k.byteLength, delta, ttlMs);
  }

  private cell(f: Field): usize {
    return this.cells + ((<usize>f) << 4);
  }

  /** In a batch the host has to know which message a call is about; most messages need no call. */
  private select(): void {
    if (this.unselected < 0) return;
    hostSelect(this.unselected);
    this.unselected = -1;
  }
}

function fail(why: string): void {
  const bytes = String.UTF8.encode(why);
  hostFail(changetype<usize>(bytes), bytes.byteLength);
}

function log(level: Level, text: string): void {
  const bytes = String.UTF8.encode(text);
  hostLog(level, changetype<usize>(bytes), bytes.byteLength);
}

/** The JSON of a member of an object, null if it is missing. Names are compared as they are written. */
function member(json: string, name: string): string | null {
  let i = space(json, 0);
  if (json.charCodeAt(i) != 0x7b) return null;
  i = space(json, i + 1);
  while (i < json.length && json.charCodeAt(i) == 0x22) {
    const key = json.substring(i + 1, value(json, i) - 1);
    const start = space(json, space(json, value(json, i)) + 1);
    const end = value(json, start);
    if (key == name) return json.substring(start, end);
    i = space(json, space(json, end) + 1);
  }
  return null;
}

function isSpace(c: i32): bool {
  return c == 0x20 || c == 0x09 || c == 0x0a || c == 0x0d;
}

function space(json: string, i: i32): i32 {
  while (i < json.length && isSpace(json.charCodeAt(i))) i++;
  return i;
}

/** The index after the value that begins at i. */
function value(json: string, i: i32): i32 {
  let depth = 0;
  let inString = false;
  for (; i < json.length; i++) {
    const c = json.charCodeAt(i);
    if (inString) {
      if (c == 0x5c) i++;
      else if (c == 0x22) {
        inString = false;
        if (depth == 0) return i + 1;
      }
    } else if (c == 0x22) {
      inString = true;
    } else if (c == 0x7b || c == 0x5b) {
      depth++;
    } else if (c == 0x7d || c == 0x5d) {
      if (depth == 0) return i;
      if (--depth == 0) return i + 1;
    } else if (depth == 0 && (c == 0x2c || c == 0x3a || isSpace(c))) {
      return i;
    }
  }
  return json.length;
}

function unquoted(json: string): string {
  let text = "";
  for (let i = 1; i < json.length - 1; i++) {
    let c = json.charCodeAt(i);
    if (c == 0x5c) {
      c = json.charCodeAt(++i);
      if (c == 0x6e) c = 0x0a;
      else if (c == 0x74) c = 0x09;
      else if (c == 0x72) c = 0x0d;
      else if (c == 0x62) c = 0x08;
      else if (c == 0x66) c = 0x0c;
      else if (c == 0x75) {
        c = <i32>parseInt(json.substring(i + 1, i + 5), 16);
        i += 4;
      }
    }
    text += String.fromCharCode(c);
  }
  return text;
}

/** A JSON string with its quotes: for building payloads. */
export function quoted(text: string): string {
  let json = '"';
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (c == 0x22 || c == 0x5c) json += "\\" + text.charAt(i);
    else if (c < 0x20) json += "\\u00" + (c < 16 ? "0" : "") + c.toString(16);
    else json += text.charAt(i);
  }
  return json + '"';
}

/** What the host calls and you only export. */
let buffer = new StaticArray<u8>(0);
let base: usize = 0;

export function filterd_abi_v1(): void {}

export function filterd_buffer(len: i32): usize {
  if (len < 0 || len > 0x3fffffff) return 0;
  buffer = new StaticArray<u8>(len + 16);
  base = (changetype<usize>(buffer) + 15) & ~15;
  return base;
}

export function filterd_configure(len: i32): i32 {
  const config = new Config(String.UTF8.decodeUnsafe(base, len));
  configured(config);
  return config.failed ? -1 : 0;
}

export function filterd_process(len: i32): i32 {
  return processed(new Message(base, len, -1, 0));
}

export function filterd_process_batch(n: i32): i32 {
  for (let i = 0; i < n; i++) {
    const entry = base + ((<usize>i) << 4);
    const m = new Message(base + load<u32>(entry), load<u32>(entry, 4), i, base + load<u32>(entry, 12));
    store<i32>(entry, processed(m), 8);
  }
  return 0;
}
