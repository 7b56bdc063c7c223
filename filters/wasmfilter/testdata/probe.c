// A guest that does what the first byte of the payload says, well or badly.
#include "filterd.h"

static u8 first[1 << 12] __attribute__((aligned(16)));
static u8 *buffer = first;
static u32 size = sizeof first;
static u8 text[1 << 16];
static u32 limit; // of the buffer; 0 for none
static u32 fields;
static u32 calls;
static u32 batch; // is being treated

static u32 align(u32 n) { return (n + 0xffff) & ~0xffffu; }

EXPORT(filterd_buffer) u8 *filterd_buffer(u32 n) {
	if (limit && n > limit) return 0;
	if (n > size) {
		u32 pages = align(n) >> 16;
		u32 at = __builtin_wasm_memory_grow(0, pages);
		if (at == ~0u) return 0;
		buffer = (u8 *)(at << 16);
		size = pages << 16;
	}
	return buffer;
}

static u32 number(u8 *to, i64 v) {
	u8 digits[24];
	u32 n = 0, k = 0;
	u64 rest = v < 0 ? -(u64)v : (u64)v;
	do digits[n++] = '0' + rest % 10; while (rest /= 10);
	if (v < 0) to[k++] = '-';
	while (n) to[k++] = digits[--n];
	return k;
}

static u32 find(const u8 *p, u32 n, u8 c) {
	u32 i = 0;
	while (i < n && p[i] != c) i++;
	return i;
}

static u32 append(u32 at, const void *p, u32 n) {
	__builtin_memcpy(text + at, p, n);
	return at + n;
}

static i32 answer(u32 n) {
	replace(text, n);
	return 2;
}

__attribute__((noinline)) static u32 deep(u32 n) {
	static volatile u32 here;
	here = n;
	return here == ~0u ? 0 : deep(n + 1) + here;
}

static void forever(void) { for (volatile u32 i = 0;; i++); }

// dump writes a line for each field: in a batch from the cells, otherwise from
// the host's functions.
static i32 dump(const cell *cells) {
	u32 at = 0;
	for (u32 id = 0; id < fields; id++) {
		u32 kind, n = 0;
		const u8 *bytes = text;
		double f = 0;
		u32 truth = 0;
		static u8 copy[1 << 12];
		if (cells) {
			const cell *c = cells + id;
			kind = c->kind;
			if (kind == 3) __builtin_memcpy(&f, &c->bits, 8);
			if (kind == 2) truth = (u32)c->bits;
			if (kind >= 4) bytes = buffer + c->bits, n = c->length;
		} else {
			kind = field_kind(id);
			if (kind == 3) f = field_f64(id);
			if (kind == 2) truth = field_bool(id);
			if (kind >= 4) n = field_bytes(id, copy, sizeof copy), bytes = copy;
		}
		at += number(text + at, kind);
		text[at++] = ' ';
		if (kind == 2) at += number(text + at, truth);
		if (kind == 3) at += number(text + at, (i64)(f * 1000));
		if (kind >= 4) at = append(at, bytes, n);
		text[at++] = '\n';
	}
	return answer(at);
}

static i32 kv(const u8 *p, u32 n) {
	u8 op = *p++;
	n--;
	u32 key = find(p, n, '=');
	const u8 *rest = p + key + 1;
	u32 more = key < n ? n - key - 1 : 0;
	i32 got;
	switch (op) {
	case 'g':
		got = kv_get(p, key, text, sizeof text);
		if (got < 0) return answer(append(0, "missing", 7));
		return answer(got);
	case 's':
		return answer(number(text, kv_set(p, key, rest, more, 0)));
	case 'i': {
		i64 delta = 0;
		u32 negative = more && *rest == '-';
		for (u32 i = negative; i < more; i++) delta = delta * 10 + rest[i] - '0';
		return answer(number(text, kv_incr(p, key, negative ? -delta : delta, 60000)));
	}
	}
	return 0;
}

static i32 handle(const u8 *p, u32 n, const cell *cells) {
	calls++;
	if (!n) return 1;
	u8 op = *p++;
	n--;
	i32 code = 0;
	switch (op) {
	case '0': return 0;
	case '2': replace("first", 5); replace(p, n); return 2;
	case 'r': return 2;
	case 'i': replace(p, n); return 1;
	case 'x': return 17;
	case 'e': fail(p, n); return -1;
	case 'n': return -7;
	case 'l': forever(); return 1;
	case 'd': return deep(0) & 1;
	case 'u': __builtin_trap();
	case 'p': replace((void *)0xfffffff0, 64); return 2;
	case '4': replace(p, 0xffffffff); return 2;
	case 'm': {
		u32 c = find(p, n, '\n');
		code = emit(p, c, p + c + 1, n - c - 1);
		return code ? -10 + code : 1;
	}
	case 'M':
		for (u32 i = 0; i < 32 && !code; i++) code = emit("out", 3, p, n);
		if (code) return -10 + code;
		code = emit("out", 3, p, n);
		return code ? -20 + code : 1;
	case 'E': emit("out", 3, "1", 1); fail("x", 1); return -1;
	case 'U': emit("out", 3, "1", 1); __builtin_trap();
	case '{': case 'f': return dump(cells);
	case 'F': return dump(0);
	case '[': return answer(field_bytes(0, text, 3)); // too little room
	case 'k': return kv(p, n);
	case 'c': return answer(channel(text, sizeof text));
	case 't': return answer(number(text, now_ns()));
	case 'o': log_(1, p, n); return 1;
	case 'O': log_(9, p, n); return 1;
	case 'g': __builtin_wasm_memory_grow(0, 1); return 1;
	case 's': return answer(number(text, calls));
	case 'a': field("data", 4); return 1;
	case 'z': field_kind(99); return 1;
	case 'y': select_(99); return 1;
	case 'v': select_(0); return 1;
	}
	return 1;
}

EXPORT(filterd_process) i32 filterd_process(u32 n) { return handle(buffer, n, 0); }

EXPORT(filterd_process_batch) i32 filterd_process_batch(u32 n) {
	u32 backwards = buffer[((entry *)buffer)->payload] == 'D';
	for (u32 k = 0; k < n; k++) {
		u32 i = backwards ? n - 1 - k : k;
		entry *e = (entry *)buffer + i;
		const u8 *p = buffer + e->payload;
		// What one message says about the batch.
		if (e->length && *p == 'q') continue;                 // left undecided
		if (e->length && *p == 'w') return 3;                 // a wrong result
		if (e->length && *p == 'S') { replace(p, 1); }        // nothing selected
		select_(i);
		e->verdict = handle(p, e->length, (const cell *)(buffer + e->fields));
	}
	for (u32 i = 0; i < n; i++) { // after all of them
		entry *e = (entry *)buffer + i;
		if (e->length && buffer[e->payload] == 'T') __builtin_trap();
	}
	return 0;
}

// The configuration is a list of strings: paths of fields, and orders.
EXPORT(filterd_configure) i32 filterd_configure(u32 n) {
	const u8 *p = buffer;
	for (u32 i = 0; i < n; i++) {
		if (p[i] != '"') continue;
		u32 k = 0;
		for (i++; i < n && p[i] != '"'; i++) {
			if (p[i] == '\\') i++;
			text[k++] = p[i];
		}
		switch (text[0]) {
		case 'd': case 'e':
			if (field(text, k) >= (i32)fields) fields++;
			break;
		case 'R': fail("not \x1b[31mtoday", 14); return 1;
		case 'L': forever();
		case 'T': __builtin_trap();
		case 'B': limit = 400; break;
		case 'X': if (field("nonsense", 8) != -1) return 2; break;
		case 'N': now_ns(); break;
		case 'K': // other fields in every instance
			if (kv_incr("n", 1, 1, 0) == 2) field("data.other", 10), fields++;
			break;
		case 'Z': kv_incr("z", 1, 1, 0); if (kv_incr("z", 1, 0, 0) > 1) __builtin_trap(); break;
		}
	}
	return 0;
}
