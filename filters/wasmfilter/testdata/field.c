// A filter that decides on one field, which it declares.
#include "filterd.h"

static u8 buffer[1 << 16] __attribute__((aligned(16)));
static i32 price;

EXPORT(filterd_buffer) u8 *filterd_buffer(u32 n) { return n <= sizeof buffer ? buffer : 0; }

EXPORT(filterd_configure) i32 filterd_configure(u32 n) {
	(void)n;
	price = field("data.price", 10);
	return 0;
}

EXPORT(filterd_process) i32 filterd_process(u32 n) {
	(void)n;
	return field_f64(price) > 100;
}

EXPORT(filterd_process_batch) i32 filterd_process_batch(u32 n) {
	entry *e = (entry *)buffer;
	for (u32 i = 0; i < n; i++) e[i].verdict = *(double *)&((cell *)(buffer + e[i].fields))[price].bits > 100;
	return 0;
}
