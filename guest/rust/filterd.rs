//! Write a filterd module in Rust. One file, no dependencies but `core` and `alloc`; interface version 1.
//!
//! ```ignore
//! mod filterd;
//! use filterd::{Config, Error, Field, Handler, Message, Verdict};
//!
//! struct Expensive {
//!     price: Field,
//!     min: f64,
//! }
//!
//! impl Handler for Expensive {
//!     fn configure(config: &mut Config) -> Result<Self, Error> {
//!         Ok(Expensive { price: config.field("data.price")?, min: config.f64("min", 100.0)? })
//!     }
//!
//!     fn process(&mut self, m: &Message) -> Result<Verdict, Error> {
//!         Ok(if m.f64(self.price) > self.min { Verdict::Pass } else { Verdict::Drop })
//!     }
//! }
//!
//! filterd::handler!(Expensive);
//! ```
//!
//! Build (the target's standard library has to be there: `rustup target add wasm32-unknown-unknown`, or Debian's
//! libstd-rust-dev-wasm32):
//!
//! ```text
//! rustc --edition 2021 --target wasm32-unknown-unknown --crate-type cdylib -O -C lto -C panic=abort -C strip=symbols -o my.wasm my.rs
//! ```
//!
//! The six things that a module can do:
//!
//! | | |
//! |---|---|
//! | handle | `filterd::handler!(MyHandler)`, or `handler!(MyHandler, batch)` to take many messages in one call |
//! | field | [`Config::field`] declares; [`Message::f64`], `bool`, `kind`, `text`, `bytes` read |
//! | replace | `Ok(m.replace(payload))` |
//! | emit | [`Message::emit`] |
//! | fail, log | `Err("why".into())`; [`Message::log`], [`Config::log`] |
//! | kv | [`Message::kv_get`], [`Message::kv_set`], [`Message::kv_incr`] |
//!
//! Only what you call is imported, so a module that keeps nothing needs no `kv:` in its configuration.
//!
//! Memory: the host writes each message into a buffer of this file's own, 16-aligned, which grows when a longer message
//! comes. [`Message`] borrows it, so that nothing of it outlives the call. The host copies whatever you hand it.
//!
//! Limits: an error's or a log's text has 1 KiB, a kv key too. A message has 32 emits of 4 MiB together, a module 256 fields.
//! Every call has a budget of instructions. A module that overruns it, or panics, gets a fresh instance: what the handler kept
//! in itself is lost then, and each worker has its own. Keep in kv what must last. A panic's text is lost too: return errors.
//!
//! In a `#![no_std]` crate (Rust 1.68 or later) the global allocator and the panic handler are the crate's to write.
#![allow(dead_code)] // a module uses what it needs

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::{Cell, UnsafeCell};

mod host {
    #[link(wasm_import_module = "filterd")]
    extern "C" {
        pub fn replace(ptr: *const u8, len: usize);
        pub fn emit(channel: *const u8, channel_len: usize, ptr: *const u8, len: usize) -> i32;
        pub fn fail(ptr: *const u8, len: usize);
        pub fn log(level: i32, ptr: *const u8, len: usize);
        pub fn channel(ptr: *mut u8, cap: usize) -> i32;
        pub fn field(path: *const u8, len: usize) -> i32;
        pub fn field_kind(id: i32) -> i32;
        pub fn field_f64(id: i32) -> f64;
        pub fn field_bool(id: i32) -> i32;
        pub fn field_bytes(id: i32, ptr: *mut u8, cap: usize) -> i32;
        pub fn now_ns() -> i64;
        pub fn kv_get(key: *const u8, key_len: usize, ptr: *mut u8, cap: usize) -> i32;
        pub fn kv_set(key: *const u8, key_len: usize, value: *const u8, len: usize, ttl_ms: i32) -> i32;
        pub fn kv_incr(key: *const u8, key_len: usize, delta: i64, ttl_ms: i32) -> i64;
        pub fn select(i: usize);
    }
}

/// What becomes of a message. For the third outcome, an error, return `Err`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Drop = 0,
    /// On, unchanged.
    Pass = 1,
    /// On, with the payload given to [`Message::replace`], which returns this.
    Replaced = 2,
}

/// Why a message failed, or why the module can't be configured: `"text".into()`, or `format!(…).into()`.
#[derive(Debug)]
pub struct Error(String);

impl From<&str> for Error {
    fn from(text: &str) -> Self {
        Error(text.into())
    }
}

impl From<String> for Error {
    fn from(text: String) -> Self {
        Error(text)
    }
}

/// What a module is made of.
pub trait Handler: Sized {
    /// Called once per instance, before any message. An error keeps the module from loading.
    fn configure(config: &mut Config) -> Result<Self, Error>;
    /// Called for each message.
    fn process(&mut self, m: &Message) -> Result<Verdict, Error>;
}

/// A field of the messages, declared in [`Handler::configure`].
#[derive(Clone, Copy, Debug)]
pub struct Field(i32);

/// What a field is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Missing,
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    fn from(number: i32) -> Kind {
        match number {
            1 => Kind::Null,
            2 => Kind::Bool,
            3 => Kind::Number,
            4 => Kind::String,
            5 => Kind::Array,
            6 => Kind::Object,
            _ => Kind::Missing,
        }
    }
}

/// How much a log line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Why a message was not emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitError {
    /// The channel is not in the module's `publish` list.
    NotAllowed,
    /// More than 32 for one message.
    TooMany,
    /// The payload breaks the channel's contract.
    BreaksContract,
}

/// One message. What it lends out is valid until [`Handler::process`] returns.
pub struct Message<'a> {
    payload: &'a [u8],
    /// In a batch: the whole buffer, where the cells are in it, and the message's number until it is selected.
    batch: Option<(&'a [u8], &'a [RawCell])>,
    unselected: Cell<Option<usize>>,
}

impl<'a> Message<'a> {
    /// The payload: an event with its envelope.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The channel's name.
    pub fn channel(&self) -> String {
        self.select();
        let name = read(|ptr, cap| unsafe { host::channel(ptr, cap) }).unwrap_or_default();
        String::from_utf8_lossy(&name).into_owned()
    }

    /// When the message was received, in nanoseconds since 1970.
    pub fn now_ns(&self) -> i64 {
        self.select();
        unsafe { host::now_ns() }
    }

    /// What the field is.
    pub fn kind(&self, f: Field) -> Kind {
        Kind::from(match self.cell(f) {
            Some(cell) => cell.kind as i32,
            None => unsafe { host::field_kind(f.0) },
        })
    }

    /// The field's number; NaN if it is not a number.
    pub fn f64(&self, f: Field) -> f64 {
        match self.cell(f) {
            Some(cell) if cell.kind == Kind::Number as u32 => f64::from_bits(cell.bits),
            Some(_) => f64::NAN,
            None => unsafe { host::field_f64(f.0) },
        }
    }

    /// Whether the field is true.
    pub fn bool(&self, f: Field) -> bool {
        match self.cell(f) {
            Some(cell) => cell.kind == Kind::Bool as u32 && cell.bits != 0,
            None => unsafe { host::field_bool(f.0) != 0 },
        }
    }

    /// The field's string, unescaped; `None` if it is not a string.
    pub fn text(&self, f: Field) -> Option<String> {
        match self.kind(f) {
            Kind::String => String::from_utf8(self.bytes(f)?).ok(),
            _ => None,
        }
    }

    /// A string's bytes, or the JSON of anything else; `None` if the field is missing.
    pub fn bytes(&self, f: Field) -> Option<Vec<u8>> {
        match (self.cell(f), self.batch) {
            (Some(cell), _) if cell.kind == Kind::Missing as u32 => None,
            (Some(cell), Some((buffer, _))) if cell.kind >= Kind::String as u32 => {
                let at = cell.bits as usize;
                buffer.get(at..at.checked_add(cell.len as usize)?).map(Vec::from)
            }
            _ => {
                self.select();
                read(|ptr, cap| unsafe { host::field_bytes(f.0, ptr, cap) })
            }
        }
    }

    /// Passes the message on with this payload: `Ok(m.replace(payload))`.
    pub fn replace(&self, payload: impl AsRef<[u8]>) -> Verdict {
        self.select();
        let payload = payload.as_ref();
        unsafe { host::replace(payload.as_ptr(), payload.len()) };
        Verdict::Replaced
    }

    /// One more message, sent when the verdict is in, and not if that is an error.
    pub fn emit(&self, channel: &str, payload: impl AsRef<[u8]>) -> Result<(), EmitError> {
        self.select();
        let payload = payload.as_ref();
        match unsafe { host::emit(channel.as_ptr(), channel.len(), payload.as_ptr(), payload.len()) } {
            0 => Ok(()),
            -1 => Err(EmitError::NotAllowed),
            -2 => Err(EmitError::TooMany),
            _ => Err(EmitError::BreaksContract),
        }
    }

    /// Writes a line into filterd's log.
    pub fn log(&self, level: Level, text: &str) {
        self.select();
        log(level, text);
    }

    /// The value kept under a key; needs `kv:` in the module's configuration, as the next two do.
    pub fn kv_get(&self, key: impl AsRef<[u8]>) -> Option<Vec<u8>> {
        let key = key.as_ref();
        read(|ptr, cap| unsafe { host::kv_get(key.as_ptr(), key.len(), ptr, cap) })
    }

    /// Keeps a value for `ttl_ms` milliseconds, or for good if that is 0. An error says that nothing more can be kept.
    pub fn kv_set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>, ttl_ms: i32) -> Result<(), Error> {
        let (key, value) = (key.as_ref(), value.as_ref());
        match unsafe { host::kv_set(key.as_ptr(), key.len(), value.as_ptr(), value.len(), ttl_ms) } {
            0 => Ok(()),
            _ => Err("no room for another key or a larger value".into()),
        }
    }

    /// Adds to a counter, which begins at 0, and returns its new value. The counter is forgotten `ttl_ms` after it began, or
    /// never if that is 0. A value that is no whole number, and no room for a counter, end the instance.
    pub fn kv_incr(&self, key: impl AsRef<[u8]>, delta: i64, ttl_ms: i32) -> i64 {
        let key = key.as_ref();
        unsafe { host::kv_incr(key.as_ptr(), key.len(), delta, ttl_ms) }
    }

    fn cell(&self, f: Field) -> Option<&'a RawCell> {
        self.batch.and_then(|(_, cells)| cells.get(f.0 as usize))
    }

    /// In a batch the host has to know which message a call is about; most messages need no call.
    fn select(&self) {
        if let Some(i) = self.unselected.take() {
            unsafe { host::select(i) };
        }
    }
}

/// The module's `config`, a JSON object, and where fields are declared.
pub struct Config<'a>(&'a [u8]);

impl<'a> Config<'a> {
    /// Declares a field: `data` or `event`, then `.member`, `["member"]` and `[index]`.
    pub fn field(&mut self, path: &str) -> Result<Field, Error> {
        match unsafe { host::field(path.as_ptr(), path.len()) } {
            id if id >= 0 => Ok(Field(id)),
            _ => Err(joined(&["not a path: ", path])),
        }
    }

    /// The whole configuration.
    pub fn json(&self) -> &'a [u8] {
        self.0
    }

    /// The JSON of one member.
    pub fn raw(&self, name: &str) -> Option<&'a [u8]> {
        member(self.0, name)
    }

    /// A number, or `otherwise` if there is no such member.
    pub fn f64(&self, name: &str, otherwise: f64) -> Result<f64, Error> {
        let text = match self.raw(name) {
            None => return Ok(otherwise),
            Some(raw) => core::str::from_utf8(raw).unwrap_or(""),
        };
        match text.parse() {
            Ok(number) if text.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => Ok(number),
            _ => Err(joined(&["config: ", name, " must be a number"])),
        }
    }

    /// A string, or `otherwise` if there is no such member.
    pub fn text(&self, name: &str, otherwise: &str) -> Result<String, Error> {
        match self.raw(name) {
            None => Ok(otherwise.into()),
            Some(raw) => unquoted(raw).ok_or_else(|| joined(&["config: ", name, " must be a string"])),
        }
    }

    /// A bool, or `otherwise` if there is no such member.
    pub fn bool(&self, name: &str, otherwise: bool) -> Result<bool, Error> {
        match self.raw(name) {
            None => Ok(otherwise),
            Some(b"true") => Ok(true),
            Some(b"false") => Ok(false),
            _ => Err(joined(&["config: ", name, " must be true or false"])),
        }
    }

    /// Writes a line into filterd's log.
    pub fn log(&self, level: Level, text: &str) {
        log(level, text);
    }
}

fn log(level: Level, text: &str) {
    unsafe { host::log(level as i32, text.as_ptr(), text.len()) };
}

/// Without `format!`, which is large.
fn joined(parts: &[&str]) -> Error {
    Error(parts.concat())
}

/// Calls a function that fills a buffer and returns the whole length, until the buffer is large enough.
fn read(call: impl Fn(*mut u8, usize) -> i32) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    loop {
        let len = usize::try_from(call(bytes.as_mut_ptr(), bytes.capacity())).ok()?;
        if len <= bytes.capacity() {
            unsafe { bytes.set_len(len) };
            return Some(bytes);
        }
        bytes.reserve(len);
    }
}

/// The JSON of a member of an object. Names are compared as they are written.
fn member<'a>(json: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut rest = trimmed(json).strip_prefix(b"{")?;
    loop {
        rest = trimmed(rest);
        let (key, after) = rest.split_at(value_len(rest));
        rest = trimmed(trimmed(after).strip_prefix(b":")?);
        let (value, after) = rest.split_at(value_len(rest));
        if key.strip_prefix(b"\"").and_then(|k| k.strip_suffix(b"\"")) == Some(name.as_bytes()) {
            return Some(value);
        }
        rest = trimmed(after).strip_prefix(b",")?;
    }
}

fn trimmed(json: &[u8]) -> &[u8] {
    let spaces = json.iter().take_while(|c| matches!(**c, b' ' | b'\t' | b'\n' | b'\r')).count();
    &json[spaces..]
}

/// The length of the value that JSON text begins with.
fn value_len(json: &[u8]) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (i, c) in json.iter().enumerate() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    in_string = false;
                    if depth == 0 {
                        return i + 1;
                    }
                }
                _ => {}
            }
            continue;
        }
        match c {
            b'"' => in_string = true,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return i,
            b'}' | b']' if depth == 1 => return i + 1,
            b'}' | b']' => depth -= 1,
            b',' | b':' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return i,
            _ => {}
        }
    }
    json.len()
}

/// The text of a JSON string; `None` if it isn't one.
fn unquoted(json: &[u8]) -> Option<String> {
    let inner = core::str::from_utf8(json).ok()?.strip_prefix('"')?.strip_suffix('"')?;
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            text.push(c);
            continue;
        }
        text.push(match chars.next()? {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => {
                let mut hex = || u32::from_str_radix(chars.as_str().get(..4)?, 16).ok().map(|unit| (unit, chars.nth(3)).0);
                let mut code = hex()?;
                if (0xD800..0xDC00).contains(&code) && chars.as_str().starts_with("\\u") {
                    chars.nth(1);
                    let mut hex = || u32::from_str_radix(chars.as_str().get(..4)?, 16).ok().map(|unit| (unit, chars.nth(3)).0);
                    code = 0x10000 + ((code - 0xD800) << 10) + hex()?.wrapping_sub(0xDC00);
                }
                char::from_u32(code).unwrap_or('\u{FFFD}')
            }
            other => other,
        });
    }
    Some(text)
}

/// Appends a JSON string with its quotes: for building payloads.
pub fn push_json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    for c in text.bytes() {
        match c {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', c]),
            0..=0x1F => {
                let hex = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[hex[(c >> 4) as usize], hex[(c & 15) as usize]]);
            }
            _ => out.push(c),
        }
    }
    out.push(b'"');
}

/// Makes a [`Handler`] the module's: `filterd::handler!(MyHandler);` in the crate's root, beside `mod filterd;`. With
/// `, batch` the host hands over many messages in one call, which pays where calls are what costs; the handler stays as it is.
macro_rules! handler {
    ($handler:ty) => {
        static FILTERD: $crate::filterd::Instance<$handler> = $crate::filterd::Instance::new();
        #[no_mangle]
        extern "C" fn filterd_abi_v1() {}
        #[no_mangle]
        extern "C" fn filterd_buffer(len: usize) -> *mut u8 {
            FILTERD.buffer(len)
        }
        #[no_mangle]
        extern "C" fn filterd_configure(len: usize) -> i32 {
            FILTERD.configure(len)
        }
        #[no_mangle]
        extern "C" fn filterd_process(len: usize) -> i32 {
            FILTERD.process(len)
        }
    };
    ($handler:ty, batch) => {
        $crate::filterd::handler!($handler);
        #[no_mangle]
        extern "C" fn filterd_process_batch(n: usize) -> i32 {
            FILTERD.process_batch(n)
        }
    };
}
pub(crate) use handler;

/// Behind [`handler!`]: the buffer and the handler of one instance, which has one thread.
pub struct Instance<H>(UnsafeCell<(Vec<Block>, Option<H>)>);

unsafe impl<H> Sync for Instance<H> {}

#[derive(Clone, Copy)]
#[repr(C, align(16))]
struct Block([u8; 16]);

#[repr(C)]
struct RawEntry {
    payload: u32,
    len: u32,
    verdict: i32,
    fields: u32,
}

#[repr(C)]
struct RawCell {
    kind: u32,
    len: u32,
    bits: u64,
}

impl<H: Handler> Instance<H> {
    pub const fn new() -> Self {
        Instance(UnsafeCell::new((Vec::new(), None)))
    }

    /// Sound because the host calls one export at a time, and none from within another.
    #[allow(clippy::mut_from_ref)]
    fn parts(&self) -> &mut (Vec<Block>, Option<H>) {
        unsafe { &mut *self.0.get() }
    }

    pub fn buffer(&self, len: usize) -> *mut u8 {
        let (buffer, _) = self.parts();
        buffer.clear();
        let blocks = len / 16 + 1;
        if buffer.try_reserve(blocks).is_err() {
            return core::ptr::null_mut();
        }
        buffer.resize(blocks, Block([0; 16]));
        buffer.as_mut_ptr().cast()
    }

    /// All of the buffer, or nothing before there is one.
    fn bytes(&self) -> &[u8] {
        let (buffer, _) = self.parts();
        unsafe { core::slice::from_raw_parts(buffer.as_ptr().cast(), buffer.len() * 16) }
    }

    pub fn configure(&self, len: usize) -> i32 {
        match H::configure(&mut Config(&self.bytes()[..len])) {
            Ok(handler) => {
                self.parts().1 = Some(handler);
                0
            }
            Err(error) => fail(&error),
        }
    }

    pub fn process(&self, len: usize) -> i32 {
        let m = Message { payload: &self.bytes()[..len], batch: None, unselected: Cell::new(None) };
        self.verdict(&m)
    }

    pub fn process_batch(&self, n: usize) -> i32 {
        let entries: *mut RawEntry = self.parts().0.as_mut_ptr().cast();
        for i in 0..n {
            // Entries and cells are the host's: aligned, and within the buffer. No slice is held while a verdict is written.
            let entry = unsafe { entries.add(i) };
            let (payload, len, fields) = unsafe { ((*entry).payload as usize, (*entry).len as usize, (*entry).fields as usize) };
            let buffer = self.bytes();
            let cells = &buffer[fields..];
            let cells = unsafe { core::slice::from_raw_parts(cells.as_ptr().cast(), cells.len() / 16) };
            let m = Message {
                payload: &buffer[payload..payload + len],
                batch: Some((buffer, cells)),
                unselected: Cell::new(Some(i)),
            };
            let verdict = self.verdict(&m);
            unsafe { (*entry).verdict = verdict };
        }
        0
    }

    fn verdict(&self, m: &Message) -> i32 {
        let handler = match &mut self.parts().1 {
            Some(handler) => handler,
            None => return fail(&Error::from("not configured")),
        };
        match handler.process(m) {
            Ok(verdict) => verdict as i32,
            Err(error) => {
                m.select();
                fail(&error)
            }
        }
    }
}

fn fail(error: &Error) -> i32 {
    unsafe { host::fail(error.0.as_ptr(), error.0.len()) };
    -1
}
