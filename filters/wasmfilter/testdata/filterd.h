// The interface, as far as the guests of these tests need it.
typedef unsigned char u8;
typedef unsigned int u32;
typedef int i32;
typedef long long i64;
typedef unsigned long long u64;

#define IMPORT(name) __attribute__((import_module("filterd"), import_name(#name)))
#define EXPORT(name) __attribute__((export_name(#name)))

IMPORT(replace) void replace(const void *p, u32 n);
IMPORT(emit) i32 emit(const void *c, u32 cn, const void *p, u32 n);
IMPORT(fail) void fail(const void *p, u32 n);
IMPORT(log) void log_(i32 level, const void *p, u32 n);
IMPORT(channel) i32 channel(void *p, u32 cap);
IMPORT(field) i32 field(const void *p, u32 n);
IMPORT(field_kind) i32 field_kind(i32 id);
IMPORT(field_f64) double field_f64(i32 id);
IMPORT(field_bool) i32 field_bool(i32 id);
IMPORT(field_bytes) i32 field_bytes(i32 id, void *p, u32 cap);
IMPORT(now_ns) i64 now_ns(void);
IMPORT(kv_get) i32 kv_get(const void *k, u32 kn, void *p, u32 cap);
IMPORT(kv_set) i32 kv_set(const void *k, u32 kn, const void *v, u32 vn, u32 ttl_ms);
IMPORT(kv_incr) i64 kv_incr(const void *k, u32 kn, i64 delta, u32 ttl_ms);
IMPORT(select) void select_(u32 i);

typedef struct { u32 payload, length; i32 verdict; u32 fields; } entry;
typedef struct { u32 kind, length; u64 bits; } cell;

EXPORT(filterd_abi_v1) void filterd_abi_v1(void) {}
