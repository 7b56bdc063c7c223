// Does what data.do says, by every call of the SDK: see sdk_test.go.
#include "../c/filterd.h"

static filterd_field what, v;
static char word[64];
static double number;
static char out[1 << 20];

#ifdef FILTERD_NO_BUFFER
static unsigned char own[1 << 20] __attribute__((aligned(16)));
unsigned char *filterd_input(void) { return own; }
void *filterd_buffer(uint32_t len) { return len <= sizeof own ? own : 0; }
#endif

int32_t filterd_configure(uint32_t len) {
    uint32_t n;
    what = filterd_declare("data.do");
    v = filterd_declare("data[\"v\"][0]");
    if (filterd_declare("nonsense") != -1) return filterd_fail("not an error");
    number = filterd_config_f64(len, "number", 7);
    if (number != number) return filterd_fail("config: number must be a number");
    if (!filterd_config(len, "word", &n)) word[0] = '-';
    else if (filterd_config_text(len, "word", word, sizeof word) < 0) return filterd_fail("config: word must be a string");
    filterd_log(FILTERD_DEBUG, "configured");
    return 0;
}

static uint32_t decimal(int64_t x) {
    char digits[20];
    uint32_t n = 0, at = 0;
    uint64_t u = x < 0 ? -(uint64_t)x : (uint64_t)x;
    if (x < 0) out[at++] = '-';
    do digits[n++] = (char)('0' + u % 10);
    while (u /= 10);
    while (n) out[at++] = digits[--n];
    return at;
}

static int same(const char *a, const char *b) {
    uint32_t n = filterd_strlen(a);
    return n == filterd_strlen(b) && !memcmp(a, b, n);
}

static int32_t process(const char *payload, uint32_t len) {
    char action[16] = {0};
    filterd_text(what, action, sizeof action - 1);
    int32_t n = filterd_text(v, out, sizeof out - 1);
    if (n >= 0) out[n] = 0;
    if (same(action, "pass")) return FILTERD_PASS;
    if (same(action, "drop")) return FILTERD_DROP;
    if (same(action, "fail")) return filterd_fail(out);
    if (same(action, "payload")) return filterd_replace(payload, len);
    if (same(action, "channel")) return filterd_replace(out, filterd_channel(out, sizeof out));
    if (same(action, "now")) return filterd_replace(out, decimal(filterd_now_ns()));
    if (same(action, "kind")) return filterd_replace(out, decimal(filterd_kind(v)));
    if (same(action, "text")) return n < 0 ? filterd_replace("missing", 7) : filterd_replace(out, (uint32_t)n);
    if (same(action, "bool")) return filterd_replace(out, decimal(filterd_bool(v)));
    if (same(action, "number")) {
        double x = filterd_f64(v);
        return x != x ? filterd_replace("NaN", 3) : filterd_replace(out, decimal((int64_t)(x * 1000)));
    }
    if (same(action, "config")) {
        uint32_t at = decimal((int64_t)(number * 1000)), w = filterd_strlen(word);
        out[at++] = ' ';
        memcpy(out + at, word, w);
        return filterd_replace(out, at + w);
    }
    if (same(action, "emit")) return filterd_replace(out, decimal(filterd_emit("side", out, (uint32_t)n) * 10 + filterd_emit("closed", out, (uint32_t)n)));
    if (same(action, "emit33")) {
        int32_t code = 0;
        for (int i = 0; i < 33; i++) code = filterd_emit("side", "7", 1);
        return filterd_replace(out, decimal(code));
    }
    if (same(action, "log")) {
        filterd_log(FILTERD_WARN, out);
        return FILTERD_DROP;
    }
    if (same(action, "set")) return filterd_replace(out, decimal(filterd_kv_set("key", 3, out, (uint32_t)n, 60000)));
    if (same(action, "get")) {
        n = filterd_kv_get("key", 3, out, sizeof out);
        return n < 0 ? filterd_replace("missing", 7) : filterd_replace(out, (uint32_t)n);
    }
    if (same(action, "incr")) return filterd_replace(out, decimal(filterd_kv_incr("count", 5, -2, 0)));
    return filterd_fail("unknown");
}

int32_t filterd_process(uint32_t len) { return process(filterd_payload(), len); }

int32_t filterd_process_batch(uint32_t n) {
    filterd_entry *batch = filterd_batch();
    for (uint32_t i = 0; i < n; i++) {
        filterd_select(i);
        batch[i].verdict = process(filterd_at(batch[i].payload), batch[i].len);
    }
    return 0;
}
