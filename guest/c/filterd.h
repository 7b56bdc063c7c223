/*
 * filterd.h: write a filterd module in C. One header, no libc, interface version 1.
 *
 *     #include "filterd.h"
 *
 *     static filterd_field price;
 *
 *     int32_t filterd_configure(uint32_t len) {
 *         price = filterd_declare("data.price");
 *         return 0;
 *     }
 *
 *     int32_t filterd_process(uint32_t len) {
 *         return filterd_f64(price) > 100 ? FILTERD_PASS : FILTERD_DROP;
 *     }
 *
 * Build:
 *
 *     clang --target=wasm32 -O2 -nostdlib -Wl,--no-entry,--strip-all,--stack-first -o my.wasm my.c
 *
 * The six things that a module can do:
 *
 *     handle     define filterd_process, and filterd_configure for what happens once
 *     field      filterd_declare in filterd_configure; filterd_f64, _bool, _kind, _text in filterd_process
 *     replace    return filterd_replace(bytes, length);
 *     emit       filterd_emit("channel", bytes, length)
 *     fail, log  return filterd_fail("why");  filterd_log(FILTERD_WARN, "what")
 *     kv         filterd_kv_get, filterd_kv_set, filterd_kv_incr
 *
 * Only what you call is imported, so a module that keeps nothing needs no `kv:` in its configuration.
 *
 * Memory. The buffer that the host writes into begins where C's static data and stack end (__heap_base) and owns all
 * memory from there; it is 16-aligned and grows when a longer message comes. What it holds (filterd_payload, a batch,
 * the configuration) is valid until your function returns: copy what you want to keep into memory of your own. The host
 * copies whatever you hand it during the call. With a libc, whose malloc wants the same memory, define FILTERD_NO_BUFFER
 * and write filterd_buffer yourself. The stack has 64 KiB (-Wl,-z,stack-size=N); --stack-first makes its overflow a trap.
 *
 * Limits. A text for fail and log has 1 KiB, a kv key too. A message has 32 emits of 4 MiB together, a module 256 fields.
 * Every call has a budget of instructions, and a module that overruns it, or traps, gets a fresh instance: static variables
 * are lost then, and each worker has its own. Keep in kv what must last.
 */
#ifndef FILTERD_H
#define FILTERD_H

#include <stdint.h>

#ifndef __wasm32__
#error "filterd.h is for clang --target=wasm32"
#endif

/* ---- What you write -------------------------------------------------------------------------------------------- */

#define FILTERD_EXPORT(name) __attribute__((export_name(name)))

/* Optional, once per instance: declare fields, read the configuration. Return 0, or filterd_fail("why") to refuse. */
int32_t filterd_configure(uint32_t len) FILTERD_EXPORT("filterd_configure");

/* One message; filterd_payload() holds its len bytes. Return FILTERD_DROP, FILTERD_PASS, filterd_replace or filterd_fail. */
int32_t filterd_process(uint32_t len) FILTERD_EXPORT("filterd_process");

/* Optional: n messages at once; write the verdict of each into filterd_batch()[i].verdict and return 0. */
int32_t filterd_process_batch(uint32_t n) FILTERD_EXPORT("filterd_process_batch");

/* ---- The host's functions, as they are -------------------------------------------------------------------------- */

#define FILTERD_IMPORT(name) __attribute__((import_module("filterd"), import_name(name)))

FILTERD_IMPORT("replace") void filterd_host_replace(const void *bytes, uint32_t len);
FILTERD_IMPORT("emit") int32_t filterd_host_emit(const char *channel, uint32_t channel_len, const void *bytes, uint32_t len);
FILTERD_IMPORT("fail") void filterd_host_fail(const char *text, uint32_t len);
FILTERD_IMPORT("log") void filterd_host_log(int32_t level, const char *text, uint32_t len);
FILTERD_IMPORT("channel") int32_t filterd_host_channel(char *out, uint32_t cap);
FILTERD_IMPORT("field") int32_t filterd_host_field(const char *path, uint32_t len);
FILTERD_IMPORT("field_kind") int32_t filterd_host_field_kind(int32_t field);
FILTERD_IMPORT("field_f64") double filterd_host_field_f64(int32_t field);
FILTERD_IMPORT("field_bool") int32_t filterd_host_field_bool(int32_t field);
FILTERD_IMPORT("field_bytes") int32_t filterd_host_field_bytes(int32_t field, void *out, uint32_t cap);
FILTERD_IMPORT("now_ns") int64_t filterd_host_now_ns(void);
FILTERD_IMPORT("kv_get") int32_t filterd_host_kv_get(const void *key, uint32_t key_len, void *out, uint32_t cap);
FILTERD_IMPORT("kv_set") int32_t filterd_host_kv_set(const void *key, uint32_t key_len, const void *value, uint32_t len, int32_t ttl_ms);
FILTERD_IMPORT("kv_incr") int64_t filterd_host_kv_incr(const void *key, uint32_t key_len, int64_t delta, int32_t ttl_ms);
FILTERD_IMPORT("select") void filterd_host_select(uint32_t i);

/* ---- Verdicts ---------------------------------------------------------------------------------------------------- */

#define FILTERD_DROP 0
#define FILTERD_PASS 1     /* unchanged */
#define FILTERD_REPLACED 2 /* what filterd_replace returns */
#define FILTERD_FAILED (-1) /* what filterd_fail returns */

static inline uint32_t filterd_strlen(const char *s) {
    uint32_t n = 0;
    while (s[n]) n++;
    return n;
}

/* Passes the message on with this payload: return filterd_replace(bytes, len); */
static inline int32_t filterd_replace(const void *bytes, uint32_t len) {
    filterd_host_replace(bytes, len);
    return FILTERD_REPLACED;
}

/* Fails the message, which then takes its rule's on_error: return filterd_fail("why"); */
static inline int32_t filterd_fail(const char *text) {
    filterd_host_fail(text, filterd_strlen(text));
    return FILTERD_FAILED;
}

/* ---- The message ------------------------------------------------------------------------------------------------- */

#ifndef FILTERD_NO_BUFFER
extern unsigned char __heap_base;
/* Where the host writes; 16-aligned. */
static inline unsigned char *filterd_input(void) {
    return (unsigned char *)(((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15);
}
#else
unsigned char *filterd_input(void); /* yours: what filterd_buffer returned last */
#endif

/* The payload: an event with its envelope, not terminated by a zero. */
static inline const char *filterd_payload(void) { return (const char *)filterd_input(); }

/* The channel's name, not terminated by a zero. Returns its whole length, of which at most cap bytes are in out. */
static inline uint32_t filterd_channel(char *out, uint32_t cap) { return (uint32_t)filterd_host_channel(out, cap); }

/* When the message was received, in nanoseconds since 1970. */
static inline int64_t filterd_now_ns(void) { return filterd_host_now_ns(); }

/* ---- Fields: the host reads them, so that you need no JSON parser ------------------------------------------------ */

typedef int32_t filterd_field;

enum { FILTERD_MISSING, FILTERD_NULL, FILTERD_BOOL, FILTERD_NUMBER, FILTERD_STRING, FILTERD_ARRAY, FILTERD_OBJECT };

/* Only in filterd_configure: "data" or "event", then .member, ["member"] and [index]. Below 0 if that is not a path. */
static inline filterd_field filterd_declare(const char *path) { return filterd_host_field(path, filterd_strlen(path)); }

static inline int32_t filterd_kind(filterd_field f) { return filterd_host_field_kind(f); }

/* NaN for what is not a number. */
static inline double filterd_f64(filterd_field f) { return filterd_host_field_f64(f); }

/* 0 for what is not true. */
static inline int32_t filterd_bool(filterd_field f) { return filterd_host_field_bool(f); }

/* A string unescaped, anything else as its JSON, not terminated by a zero. Returns the whole length, of which at most
   cap bytes are in out, and -1 for a missing field. */
static inline int32_t filterd_text(filterd_field f, char *out, uint32_t cap) { return filterd_host_field_bytes(f, out, cap); }

/* ---- More messages, logs ------------------------------------------------------------------------------------------ */

#define FILTERD_NOT_ALLOWED (-1)     /* the channel is not in the module's publish list */
#define FILTERD_TOO_MANY (-2)        /* more than 32 */
#define FILTERD_BREAKS_CONTRACT (-3) /* of the channel */

/* One more message, sent when the verdict is in, and not if that is an error. Returns 0 or one of the three above. */
static inline int32_t filterd_emit(const char *channel, const void *bytes, uint32_t len) {
    return filterd_host_emit(channel, filterd_strlen(channel), bytes, len);
}

enum { FILTERD_DEBUG, FILTERD_INFO, FILTERD_WARN, FILTERD_ERROR };

static inline void filterd_log(int32_t level, const char *text) { filterd_host_log(level, text, filterd_strlen(text)); }

/* ---- KV: memory that outlives the instance; needs `kv:` in the module's configuration ----------------------------- */

/* Returns the value's whole length, of which at most cap bytes are in out, and -1 for a missing key. */
static inline int32_t filterd_kv_get(const void *key, uint32_t key_len, void *out, uint32_t cap) {
    return filterd_host_kv_get(key, key_len, out, cap);
}

/* Forgotten after ttl_ms milliseconds; never, if that is 0. Returns 0, and -1 if nothing more can be kept. */
static inline int32_t filterd_kv_set(const void *key, uint32_t key_len, const void *value, uint32_t len, int32_t ttl_ms) {
    return filterd_host_kv_set(key, key_len, value, len, ttl_ms);
}

/* Adds to a counter, which begins at 0, and returns its new value. The counter is forgotten ttl_ms after it began; never, if
   that is 0. A value that is no whole number, and no room for a counter, end the instance. */
static inline int64_t filterd_kv_incr(const void *key, uint32_t key_len, int64_t delta, int32_t ttl_ms) {
    return filterd_host_kv_incr(key, key_len, delta, ttl_ms);
}

/* ---- Batches: optional, for when a call for each message is too dear ---------------------------------------------- */

typedef struct {
    uint32_t payload, len; /* filterd_at(payload) */
    int32_t verdict;       /* to be written */
    uint32_t fields;       /* filterd_cells */
} filterd_entry;

typedef struct {
    uint32_t kind, len;
    union {
        double number;
        uint64_t bits; /* the bool, or where a string's bytes or the JSON are: filterd_at(bits) */
    };
} filterd_cell;

/* The messages of the batch. */
static inline filterd_entry *filterd_batch(void) { return (filterd_entry *)filterd_input(); }

/* What the host wrote at an offset: a payload or a cell's text. */
static inline const char *filterd_at(uint64_t offset) { return (const char *)filterd_input() + (uint32_t)offset; }

/* A message's fields, by filterd_field: filterd_cells(entry)[price]. */
static inline const filterd_cell *filterd_cells(const filterd_entry *e) {
    return (const filterd_cell *)(filterd_input() + e->fields);
}

/* A cell's number; NaN for what is not a number. */
static inline double filterd_cell_f64(filterd_cell c) { return c.kind == FILTERD_NUMBER ? c.number : __builtin_nan(""); }

/* The message that filterd_replace, _fail, _emit, _channel, _now_ns and the field functions are about from here on. */
static inline void filterd_select(uint32_t i) { filterd_host_select(i); }

/* ---- Configuration: the top members of its JSON object, in filterd_configure -------------------------------------- */

static inline uint32_t filterd_skip_space(const char *s, uint32_t i, uint32_t len) {
    while (i < len && (s[i] == ' ' || s[i] == '\t' || s[i] == '\n' || s[i] == '\r')) i++;
    return i;
}

/* The index after the value that begins at i. */
static inline uint32_t filterd_skip_value(const char *s, uint32_t i, uint32_t len) {
    uint32_t depth = 0;
    int in_string = 0;
    for (; i < len; i++) {
        char c = s[i];
        if (in_string) {
            if (c == '\\') i++;
            else if (c == '"') in_string = 0;
            if (!in_string && depth == 0) return i + 1;
        } else if (c == '"') {
            in_string = 1;
        } else if (c == '{' || c == '[') {
            depth++;
        } else if (c == '}' || c == ']') {
            if (depth == 0) return i;
            if (--depth == 0) return i + 1;
        } else if (depth == 0 && (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            return i;
        }
    }
    return len;
}

/* The JSON of a member, and its length; 0 if it is missing. The member's name is compared as it is written. */
static inline const char *filterd_config(uint32_t len, const char *name, uint32_t *value_len) {
    const char *s = filterd_payload();
    uint32_t name_len = filterd_strlen(name);
    uint32_t i = filterd_skip_space(s, 0, len);
    if (i >= len || s[i] != '{') return 0;
    for (i = filterd_skip_space(s, i + 1, len); i < len && s[i] == '"';) {
        uint32_t key = i + 1, key_end = filterd_skip_value(s, i, len) - 1;
        uint32_t value = filterd_skip_space(s, filterd_skip_space(s, key_end + 1, len) + 1, len);
        uint32_t end = filterd_skip_value(s, value, len);
        uint32_t same = 0;
        while (same < name_len && key + same < key_end && s[key + same] == name[same]) same++;
        if (same == name_len && key + same == key_end) {
            *value_len = end - value;
            return s + value;
        }
        i = filterd_skip_space(s, filterd_skip_space(s, end, len) + 1, len);
    }
    return 0;
}

/* A number, or otherwise if there is no such member; NaN if it is not a number. Right to the last bit for up to 15 digits. */
static inline double filterd_config_f64(uint32_t len, const char *name, double otherwise) {
    uint32_t n, i = 0;
    const char *s = filterd_config(len, name, &n);
    if (!s) return otherwise;
    int negative = n && s[0] == '-', any = 0;
    uint64_t digits = 0;
    int32_t exponent = 0, written = 0, written_negative = 0;
    i += (uint32_t)negative;
    for (; i < n && s[i] >= '0' && s[i] <= '9'; i++, any = 1) {
        if (digits < 1000000000000000000u) digits = digits * 10 + (uint64_t)(s[i] - '0');
        else exponent++;
    }
    if (i < n && s[i] == '.') {
        for (i++; i < n && s[i] >= '0' && s[i] <= '9'; i++) {
            if (digits >= 1000000000000000000u) continue;
            digits = digits * 10 + (uint64_t)(s[i] - '0');
            exponent--;
        }
    }
    if (any && i < n && (s[i] == 'e' || s[i] == 'E')) {
        i++;
        if (i < n && (s[i] == '-' || s[i] == '+')) written_negative = s[i++] == '-';
        for (; i < n && s[i] >= '0' && s[i] <= '9'; i++)
            if (written < 10000) written = written * 10 + (s[i] - '0');
    }
    if (!any || i != n) return __builtin_nan("");
    exponent += written_negative ? -written : written;
    double scale = 1, value = (double)digits;
    uint32_t steps = (uint32_t)(exponent < 0 ? -exponent : exponent);
    for (uint32_t k = 0; k < steps && k < 400; k++) scale *= 10;
    value = exponent < 0 ? value / scale : value == 0 ? 0 : value * scale;
    return negative ? -value : value;
}

static inline int32_t filterd_hex4(const char *s) {
    int32_t value = 0;
    for (int k = 0; k < 4; k++) {
        char c = s[k];
        value = value * 16 + (c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
    }
    return value;
}

/* A string, terminated by a zero. Returns its length, or -1 if there is no such member, it is not a string, or cap bytes
   don't hold it with its zero. */
static inline int32_t filterd_config_text(uint32_t len, const char *name, char *out, uint32_t cap) {
    uint32_t n, used = 0;
    const char *s = filterd_config(len, name, &n);
    if (!s || n < 2 || s[0] != '"') return -1;
    for (uint32_t i = 1; i < n - 1;) {
        unsigned char bytes[4] = {(unsigned char)s[i++]};
        uint32_t count = 1;
        if (bytes[0] == '\\') {
            char c = s[i++];
            bytes[0] = (unsigned char)(c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c == 'b' ? '\b' : c == 'f' ? '\f' : c);
            if (c == 'u') {
                if (n - i < 5) return -1;
                uint32_t r = (uint32_t)filterd_hex4(s + i);
                i += 4;
                if (r >= 0xD800 && r < 0xDC00 && n - i > 6 && s[i] == '\\' && s[i + 1] == 'u') {
                    r = 0x10000 + ((r - 0xD800) << 10) + ((uint32_t)filterd_hex4(s + i + 2) - 0xDC00);
                    i += 6;
                }
                if (r < 0x80) {
                    bytes[0] = (unsigned char)r;
                } else {
                    count = r < 0x800 ? 2 : r < 0x10000 ? 3 : 4;
                    for (uint32_t k = count; k-- > 1; r >>= 6) bytes[k] = (unsigned char)(0x80 | (r & 0x3F));
                    bytes[0] = (unsigned char)((count == 2 ? 0xC0 : count == 3 ? 0xE0 : 0xF0) | r);
                }
            }
        }
        for (uint32_t k = 0; k < count; k++) {
            if (used + 1 >= cap) return -1;
            out[used++] = (char)bytes[k];
        }
    }
    if (used >= cap) return -1;
    out[used] = 0;
    return (int32_t)used;
}

/* ---- What the host calls and you need not write -------------------------------------------------------------------- */

FILTERD_EXPORT("filterd_abi_v1") __attribute__((weak)) void filterd_abi_v1(void) {}

#ifndef FILTERD_NO_BUFFER
FILTERD_EXPORT("filterd_buffer") __attribute__((weak)) void *filterd_buffer(uint32_t len) {
    uint64_t end = (uint64_t)(uintptr_t)filterd_input() + len;
    uint64_t pages = (end + 65535) >> 16, have = __builtin_wasm_memory_size(0);
    if (pages > 65535 || (pages > have && __builtin_wasm_memory_grow(0, (uint32_t)(pages - have)) == (__SIZE_TYPE__)-1)) return 0;
    return filterd_input();
}
#else
FILTERD_EXPORT("filterd_buffer") void *filterd_buffer(uint32_t len);
#endif

/* clang calls these for loops and structs even without a libc; one that you define yourself wins. */
__attribute__((weak)) void *memcpy(void *to, const void *from, __SIZE_TYPE__ n) {
    unsigned char *t = to;
    const unsigned char *f = from;
    while (n--) *t++ = *f++;
    return to;
}

__attribute__((weak)) void *memmove(void *to, const void *from, __SIZE_TYPE__ n) {
    unsigned char *t = to;
    const unsigned char *f = from;
    if ((uintptr_t)to <= (uintptr_t)from) return memcpy(to, from, n);
    while (n--) t[n] = f[n];
    return to;
}

__attribute__((weak)) void *memset(void *to, int value, __SIZE_TYPE__ n) {
    unsigned char *t = to;
    while (n--) *t++ = (unsigned char)value;
    return to;
}

__attribute__((weak)) int memcmp(const void *a, const void *b, __SIZE_TYPE__ n) {
    const unsigned char *x = a, *y = b;
    for (; n; n--, x++, y++)
        if (*x != *y) return *x - *y;
    return 0;
}

#endif
